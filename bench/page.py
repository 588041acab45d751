"""The console in a browser: bytes and time of the first page, and from an event in the log to the page that shows it.

The browser and all servers are on this machine. `first_kib` is what a browser without a cache gets for the overview, as
it is transferred; `first_ms` is the time until the overview shows what it has read, measured by the page itself. The
floor is a small answer of the same gateway: `first_ratio` is `first_ms` divided by its time. `seen_ms` is the time
from the append of an event, by a process beside, to the moment at which the page's list has changed; `feed_ms` the
delay of the same events in a feed without a browser. `list` is the list of many VMs ([page_list.py](page_list.py)).
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import httpx

from bench.cloud import percentile
from bench.watchers import Feed, writer
from runtime.tasks.tasks import end

#: Tells the page's own time, in milliseconds since 1970, when the new name of a project is shown.
SEEN = """name => new Promise(done => {
  const look = () => {
    if ([...document.querySelectorAll("select.project option")].some(each => each.textContent === name))
      done(performance.timeOrigin + performance.now());
    else requestAnimationFrame(look);
  };
  look();
})"""
TRANSFERRED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .reduce((sum, {transferSize}) => sum + transferSize, 0)"""
READY = "() => performance.now()"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--opens", type=int, default=5, help="times that the first page is opened, at least 2 (5)")
    parser.add_argument("--events", type=int, default=100, help="events that the page has to show, at least 2 (100)")
    parser.add_argument("--vms", type=int, default=10_000, help="VMs in the log of the list; 0 for no list (10000)")
    parser.add_argument("--seconds", type=float, default=15.0, help="seconds of many events on shown VMs (15)")
    parser.add_argument("--rate", type=float, default=100.0, help="such events a second (100)")
    parser.add_argument("--home", type=Path, help="folder of the logs (~/.cache/nebula-bench)")


async def measure(
    opens: int = 5,
    events: int = 100,
    vms: int = 10_000,
    seconds: float = 15.0,
    rate: float = 100.0,
    home: Path | None = None,
) -> dict[str, Any]:
    # Playwright is a package of the developers.
    from bench import page_list
    from tests.console.bed import bed, browser

    found: dict[str, Any] = {}
    async with browser() as chromium, bed(nodes=1) as made, writer(made.cloud) as write:
        floors, times, sizes = [], [], []
        for _ in range(opens):
            async with httpx.AsyncClient(base_url=made.url) as http:
                began = time.perf_counter()
                await http.get("/v1/login")
                floors.append(time.perf_counter() - began)
            page = await made.signed_in(chromium, "admin")
            cookies = await page.context.storage_state()
            cold = await made.page(chromium, storage_state=cookies)
            await cold.goto("/console/")
            await cold.get_by_role("heading", name="1 node").wait_for()
            times.append(await cold.evaluate(READY))
            sizes.append(await cold.evaluate(TRANSFERRED))
            await made.close()
        found["first_kib"] = round(max(sizes) / 1024, 1)
        found["first_ms"] = round(percentile(times, 0.5), 1)
        found["first_ratio"] = round(percentile(times, 0.5) / percentile([1e3 * each for each in floors], 0.5), 1)

        await write.write()  # makes the project
        page = await made.signed_in(chromium, "admin")
        feed = Feed(made.cloud.http_port)
        await page.get_by_text("Live", exact=True).wait_for()
        await asyncio.sleep(1.0)
        seen = []
        for _ in range(events):
            began = time.time()
            name = await write.write()
            shown = await page.evaluate(SEEN, name)
            seen.append(shown - began * 1e3)
        found["seen_ms_p50"] = round(percentile(seen, 0.5), 1)
        found["seen_ms_p95"] = round(percentile(seen, 0.95), 1)
        found["feed_ms_p95"] = round(1e3 * percentile(feed.delays, 0.95), 1) if feed.delays else None
        await end([feed.task])
    if vms > 0:
        async with browser() as chromium:
            found["list"] = await page_list.measure(chromium, vms, seconds, rate, home)
    return found
