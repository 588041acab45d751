"""The notary's loop: signs what the log holds, every so many seconds (`eventstore/integrity/notary.py` is how)."""

from eventstore.integrity.notary import Disagrees, Notary
from handlers.managers.driver import Driver
from handlers.world.world import Changes
from runtime import logs

log = logs.get(__name__)


class Signing:
    """A notary as a manager. A log that is not the one that was signed is a failure that lasts."""

    def __init__(self, notary: Notary) -> None:
        self._notary = notary

    def driver(self, *, every: float) -> Driver:
        """Without a limit: the first time the whole log is read, page by page."""
        return Driver("notary", self._look, period=every, item_seconds=None)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        driver.each("log", self._sign)

    async def _sign(self) -> None:
        try:
            signed = await self._notary.step()
        except Disagrees as error:
            log.error("the log is not the one that was signed: no checkpoint", detail=str(error))
            raise
        if signed is not None:
            log.info("checkpoint signed", position=signed.position, digest=signed.digest)
