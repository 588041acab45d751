"""The notary's loop: signs what the log holds, every so many seconds (`eventstore/notary.py` is how)."""

from eventstore.notary import Disagrees, Notary
from handlers.managers.driver import Driver
from handlers.world import Changes
from runtime import logs

log = logs.get(__name__)


class Signing:
    """A notary as a manager. A log that is not the one that was signed is said as an error, again and again."""

    def __init__(self, notary: Notary) -> None:
        self._notary = notary

    def driver(self, *, every: float) -> Driver:
        return Driver("notary", self._look, period=every)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        await driver.each("log", self._sign)

    async def _sign(self) -> None:
        try:
            signed = await self._notary.step()
        except Disagrees as error:
            log.error("the log is not the one that was signed: no checkpoint", detail=str(error))
        else:
            if signed is not None:
                log.info("checkpoint signed", position=signed.position, digest=signed.digest)
