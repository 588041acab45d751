"""The notary's loop: signs the log periodically. `eventstore/integrity/notary.py` says how."""

from eventstore.integrity.notary import Disagrees, Notary
from handlers.managers.driver import Driver
from handlers.world.watch import Changes
from runtime import logs

log = logs.get(__name__)


class Signing:
    """The notary as a manager. If the log differs from the one that was signed, that stays a failure."""

    def __init__(self, notary: Notary) -> None:
        self._notary = notary

    def driver(self, *, every: float) -> Driver:
        """`every`: seconds. An item has no time limit: the first time the whole log is read."""
        return Driver("notary", self._look, period=every, item_seconds=None)

    async def _look(self, changes: Changes, driver: Driver) -> None:
        driver.submit("log", self._sign)

    async def _sign(self) -> None:
        try:
            signed = await self._notary.step()
        except Disagrees as error:
            log.error("log differs from the signed one; no checkpoint", detail=str(error))
            raise
        if signed is not None:
            log.info("checkpoint signed", position=signed.position, digest=signed.digest)
