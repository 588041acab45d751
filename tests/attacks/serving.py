"""guest-data without a bus: the data source of a host's guests, as it listens, with data that a test gives.

Arguments: address, port, JSON of the data by their secrets. It prints each call of a guest that it would pass on.
"""

import asyncio
import json
import sys
from collections.abc import Mapping

from domain.contract.guest_data import GuestCall, GuestSeed
from projections.guest_data.asker import Asker, UnknownSecret
from projections.guest_data.copies import Copies
from projections.guest_data.source import Source
from projections.guest_data.status import Status
from runtime import listener
from runtime.settings import GuestDataSettings


class Given(Asker):
    """Answers from the given data."""

    def __init__(self, seeds: Mapping[str, GuestSeed]) -> None:
        self._seeds = seeds

    async def seed(self, secret: str) -> GuestSeed:
        if secret not in self._seeds:
            raise UnknownSecret("unknown secret")
        return self._seeds[secret]

    async def ready(self, secret: str, call: GuestCall) -> None:
        print(json.dumps({"call": (await self.seed(secret)).vm, "as": call.instance_id}), flush=True)


async def main(host: str, port: str, seeds: str) -> None:
    asker = Given({secret: GuestSeed.model_validate(seed) for secret, seed in json.loads(seeds).items()})
    copies = Copies(None)
    source = Source(asker, copies, Status(asker, copies.__len__, None))
    sock = listener.bind(host, int(port))
    print("listens", flush=True)
    await listener.serve(source, sock, asyncio.Event(), GuestDataSettings().http_limits)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
