"""How fast the whole log is read back as typed events, next to nats-py's own ordered consumer reading raw messages.

Each reading is done by a process of its own, so that its memory can be told: the log grows from ten thousand events to
a hundred thousand, the reader does not. A third reader judges each event too, as projections and handlers do: form,
MAC, chain. `--events 1000000` takes about six minutes.
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import nats

from bench.log import CONTEXT, KEYS, Log, life, log
from domain.base import Foreign
from eventstore.log.envelope import GENESIS, Ref
from eventstore.log.follow import follow
from eventstore.log.judge import Malformed, judge_after
from eventstore.log.keyring import Keyring
from eventstore.log.store import Change, EventStore, Tip
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.tasks.tasks import heed_cancellation

SMALL, LARGE = 10_000, 100_000
ROUNDS = 3
JUDGED = 100_000
"""The largest log that is also judged."""
LIVES = 100
"""VMs whose whole lives are appended as one batch while the log is made."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--events", type=int, default=LARGE, help=f"events of the larger log ({LARGE})")


async def measure(events: int = LARGE) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    async with log() as made:
        store = EventStore(made.ours, made.keys, timeout=60)
        for size in sorted({min(SMALL, events), events}):
            name = name_of(size)
            await fill(store, size)
            pairs = [
                (await in_a_process("ours", made, size), await in_a_process("floor", made, size)) for _ in range(ROUNDS)
            ]
            figures |= {
                f"events_per_second_{name}": round(statistics.median(ours["rate"] for ours, _ in pairs)),
                f"floor_per_second_{name}": round(statistics.median(floor["rate"] for _, floor in pairs)),
                f"ratio_{name}": round(statistics.median(o["rate"] / f["rate"] for o, f in pairs), 3),
                f"peak_rss_mib_{name}": round(max(ours["rss_mib"] for ours, _ in pairs), 1),
                f"cpu_us_per_event_{name}": round(statistics.median(ours["cpu_us"] for ours, _ in pairs), 1),
            }
            if size <= JUDGED:
                judged = [await in_a_process("judged", made, size) for _ in range(ROUNDS)]
                figures |= {
                    f"judged_per_second_{name}": round(statistics.median(one["rate"] for one in judged)),
                    f"judged_cpu_us_per_event_{name}": round(statistics.median(one["cpu_us"] for one in judged), 1),
                }
    return figures


def name_of(size: int) -> str:
    """A short name of a number: 1e5 for 100,000."""
    digits = str(size).rstrip("0")
    return f"{digits}e{len(str(size)) - len(digits)}"


async def fill(store: EventStore, size: int) -> None:
    """Append until the log has so many events: whole lives of VMs, five events each."""
    while await store.last_position() < size:
        heed_cancellation()
        refs = [Ref("bench", "vm", str(uuid4())) for _ in range(LIVES)]
        await store.append([Change(Tip(ref), life(ref.id)) for ref in refs], CONTEXT)


async def in_a_process(reader: str, made: Log, size: int) -> dict[str, float]:
    heed_cancellation()
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "--",
        sys.executable,
        "-m",
        __name__,
        reader,
        made.url,
        str(made.home / KEYS),
        str(size),
    ]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"reading {size} events ended with status {process.returncode}")
    found: dict[str, float] = json.loads(out)
    return found


async def ours(url: str, keys: Path, size: int) -> int:
    """Read and decode; the number of events that came out as what they are."""
    nc = QuickClient()
    await nc.connect(url)
    read = known = 0
    async for batch in follow(nc, 0, event_keys=Keyring(keys)):
        known += sum(not isinstance(recorded.event, Foreign) for recorded in batch)
        read += len(batch)
        if read >= size:
            break
    await nc.close()
    return known


async def judged(url: str, keys: Path, size: int) -> int:
    """Read and judge; the number of events that are valid."""
    nc = QuickClient()
    await nc.connect(url)
    read = valid = 0
    newest: dict[str, tuple[int, str]] = {}
    async for batch in follow(nc, 0, event_keys=Keyring(keys)):
        for recorded in batch:
            version, digest = newest.get(recorded.subject, (0, GENESIS))
            if not isinstance(judge_after(recorded, version, digest), Malformed):
                newest[recorded.subject] = version + 1, recorded.digest
                valid += 1
        read += len(batch)
        if read >= size:
            break
    await nc.close()
    return valid


async def floor(url: str, _keys: Path, size: int) -> int:
    nc = await nats.connect(url)
    subscription = await nc.jetstream().subscribe(
        ">", stream=subjects.EVENTS, ordered_consumer=True, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    for _ in range(size):
        await subscription.next_msg(timeout=10)
    await nc.close()
    return size


def main() -> None:
    """One reading, as JSON: events per second, CPU time for each, and the most memory that the process ever had."""
    reader, url, keys, size = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    used, started = time.process_time(), time.perf_counter()
    known = asyncio.run({"ours": ours, "judged": judged, "floor": floor}[reader](url, keys, size))
    rate = size / (time.perf_counter() - started)
    cpu = (time.process_time() - used) / size * 1e6
    if known < size:
        raise SystemExit(f"{size - known} events were not understood")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rate": rate, "cpu_us": cpu, "rss_mib": memory}))


if __name__ == "__main__":
    main()
