"""`python -m tests.projections.worker NATS_URL DSN MASTER_KEY`: keeps read models up to date; a test kills it."""

import asyncio
import sys
from pathlib import Path

import nats

from eventstore.vault.vault import Vault
from projections.position import Position
from projections.runner import Runner


async def main(url: str, dsn: str, key: str) -> None:
    nc = await nats.connect(url)
    await Runner(nc, dsn, Vault.of(nc, Path(key)), Position()).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
