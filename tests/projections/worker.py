"""`python -m tests.projections.worker NATS_URL DSN MASTER_KEY [EVENT_KEYS]`: the runner, for a test that kills it.

With event keys it reads the log in long ranges, as while it is far behind; ranges and batches are small.
"""

import asyncio
import sys
from pathlib import Path

from eventstore.log.keyring import Keyring
from eventstore.vault.vault import Vault
from projections import ahead, behind
from projections.position import Position
from projections.runner import Runner
from runtime.bus.quick_client import QuickClient


class PatientRanges(behind.Ranges):
    """Reads nothing until the other processes can help: a short log would be read before they have started."""

    async def __aenter__(self) -> "PatientRanges":
        await super().__aenter__()
        await asyncio.gather(*self._starting)
        return self


async def main(url: str, dsn: str, key: str, event_keys: str | None = None) -> None:
    if event_keys is not None:
        behind.WORTH_IT, behind.SIZE, behind.BATCH, ahead.MOST = 1, 16, 64, 64
        behind.Ranges = PatientRanges  # type: ignore[misc]
    nc = QuickClient()
    await nc.connect(url)
    keys = Keyring(Path(event_keys)) if event_keys is not None else None
    await Runner(nc, dsn, Vault.of(nc, Path(key)), Position(), event_keys=keys).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
