"""The console in a browser: bytes and time of the first page, and from an event in the log to the page that shows it.

The browser and all servers are on this machine. `first_kib` is what a browser without a cache gets for the overview, as
it is transferred; `first_ms` is the time until the overview shows what it has read, measured by the page itself.
`first_requests` is the number of requests until then, and `first_rounds` how many of them follow one another: the
longest chain in which each begins after the end of the one before. `first_gateway_cpu_ms` and `first_browser_cpu_ms`
are CPU times, which say more than `first_ms` while the machine has other work. The floor is a small answer of the same
gateway: `first_ratio` is `first_ms` divided by its time. `seen_ms` is the time from the append of an event, by a
process beside, to the moment at which the page's list has changed; `feed_ms` the delay of the same events in a feed
without a browser. `list` is the list of many VMs ([page_list.py](page_list.py)).
"""

import argparse
import asyncio
import os
import time
from pathlib import Path
from typing import Any

import httpx

from bench.cloud import cpu_seconds, percentile
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
#: The requests of the page until now: bytes in all, number, and the longest chain of those that follow one another.
REQUESTS = """() => {
  const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .filter(({responseEnd, name}) => responseEnd > 0 && !name.endsWith("/v1/feed"));
  let rounds = 0, end = 0;
  for (const one of all.sort((a, b) => a.responseEnd - b.responseEnd))
    if (one.startTime >= end) { rounds += 1; end = one.responseEnd; }
  return [all.reduce((sum, {transferSize}) => sum + transferSize, 0), all.length, rounds];
}"""
#: Tells the page's own time when it shows what is read of the nodes.
READY = """() => new Promise(done => {
  const look = () => document.getElementById("nodes") ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""
#: Seconds after which the page does nothing more than to follow the log.
SETTLED = 2.0


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
    from tests.console.bed import GATEWAY, bed, browser

    found: dict[str, Any] = {}
    async with browser() as chromium, bed(nodes=1) as made, writer(made.cloud) as write:
        floors, times, requests, gateways, browsers = [], [], [], [], []
        gateway = made.cloud.processes[GATEWAY].pid
        for _ in range(opens):
            async with httpx.AsyncClient(base_url=made.url) as http:
                began = time.perf_counter()
                await http.get("/v1/login")
                floors.append(time.perf_counter() - began)
            page = await made.signed_in(chromium, "admin")
            cookies = await page.context.storage_state()
            await made.close()
            cold = await made.page(chromium, storage_state=cookies)
            before = cpu_seconds(gateway), browser_cpu()
            await cold.goto("/console/", wait_until="commit")
            times.append(await cold.evaluate(READY))
            requests.append(await cold.evaluate(REQUESTS))
            await asyncio.sleep(SETTLED)
            gateways.append(cpu_seconds(gateway) - before[0])
            browsers.append(browser_cpu() - before[1])
            await made.close()
        found["first_kib"] = round(max(size for size, _, _ in requests) / 1024, 1)
        found["first_requests"] = max(number for _, number, _ in requests)
        found["first_rounds"] = max(rounds for _, _, rounds in requests)
        found["first_gateway_cpu_ms"] = round(1e3 * percentile(gateways, 0.5))
        found["first_browser_cpu_ms"] = round(1e3 * percentile(browsers, 0.5))
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


def browser_cpu() -> float:
    """Seconds of CPU time of the browser that this process has started, of all its processes."""
    parents, names = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(stat.parent.name)
        parents[pid], names[pid] = int(rest.split()[1]), head.partition("(")[2]

    def mine(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    total = 0.0
    for pid, name in names.items():
        if name.startswith("chrom") and mine(pid):
            try:
                total += cpu_seconds(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total
