"""The list of many VMs in a browser: what it draws, and the tasks that a person would feel.

`longest_ms` is the longest task of the page's own thread (from 50 ms on; 0 if there was none) while the list is read,
sorted, searched and scrolled; `storm_longest_ms` the same while events of shown VMs are appended at a steady rate.
`rows` is the greatest number of rows in the document. `read_ms` is the time until all pages are there, next to
`floor_ms`, the same pages read by a client that does nothing with them.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
from playwright.async_api import Browser, Page

from bench.cloud import Cloud, expect
from bench.scale.lists import checkpoint, connected
from bench.scale.logs import with_log
from bench.scale.verify import last_position
from domain.vm.verbs.change import VmChanged
from eventstore.log.envelope import Context, Ref
from eventstore.log.keyring import Keyring
from eventstore.log.store import Change, EventStore, Tip
from projections import database
from runtime.bus.accounts.authority import Authority
from runtime.bus.accounts.table import HANDLERS
from runtime.bus.login import login
from runtime.settings import Common

#: Makes the page keep the length of its longest task.
WATCH = """() => {
  window.longest = 0;
  new PerformanceObserver(list => {
    for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration);
  }).observe({type: "longtask"});
}"""
LONGEST = "() => { const found = window.longest; window.longest = 0; return found; }"
#: Scrolls so many pixels a frame, for so many frames or to the end; tells the greatest number of rows in the document.
SCROLL = """async ([step, frames]) => {
  const box = document.querySelector(".table-box");
  let most = 0;
  for (let frame = 0; frame < frames && frame * step < box.scrollHeight; frame += 1) {
    box.scrollTop = frame * step;
    await new Promise(done => requestAnimationFrame(done));
    most = Math.max(most, document.querySelectorAll(".table .row").length);
  }
  box.scrollTop = 0;
  return most;
}"""
COUNTED = "count => document.querySelector('.count')?.textContent === `${count.toLocaleString('en')} VMs`"
SHOWN = "() => [...document.querySelectorAll('.table .row')].map(row => row.dataset.id)"
LIST = "/v1/vms?limit=500"


async def measure(chromium: Browser, vms: int, seconds: float, rate: float, home: Path | None) -> dict[str, float]:
    async with with_log(vms, home) as cloud:
        await cloud.start("projections")
        await cloud.start("gateway")
        await read(cloud)
        count, floor = await plainly(cloud)
        page = await (await chromium.new_context()).new_page()
        await page.add_init_script(f"({WATCH})()")
        began = time.perf_counter()
        await page.goto(f"http://127.0.0.1:{cloud.http_port}/console/vms")
        await page.wait_for_function(COUNTED, arg=count, timeout=120_000)
        took = time.perf_counter() - began
        await page.get_by_role("columnheader", name="Name").get_by_role("button").click()
        rows = await page.evaluate(SCROLL, [440, 1000])
        await page.get_by_role("searchbox").fill("web-1")
        await page.get_by_role("searchbox").fill("")
        await page.wait_for_function(COUNTED, arg=count)
        longest = await page.evaluate(LONGEST)
        storm = await stormy(cloud, page, seconds, rate)
        await page.context.close()
    return {
        **{"vms": count, "rows": rows, "longest_ms": round(longest, 1), **storm},
        **{"read_ms": round(1e3 * took, 1), "floor_ms": round(1e3 * floor, 1), "read_ratio": round(took / floor, 1)},
    }


async def read(cloud: Cloud) -> None:
    """Wait until the read models have the whole log."""
    nc = await cloud.bus()
    end = await last_position(nc)
    await nc.close()
    async with await database.connect(cloud.env["NEBULA_POSTGRES_DSN"], "bench") as conn:
        while await checkpoint(conn) < end:
            cloud.check()
            await asyncio.sleep(0.5)
        await conn.execute("ANALYZE")


async def plainly(cloud: Cloud) -> tuple[int, float]:
    """The number of VMs, and the seconds to read them all."""
    count, token = 0, ""
    async with await connected(cloud) as http:
        began = time.perf_counter()
        while True:
            found = await expect(http, "GET", LIST + token)
            count += len(found["items"])
            if found["next_page_token"] is None:
                return count, time.perf_counter() - began
            token = f"&page_token={found['next_page_token']}"


async def stormy(cloud: Cloud, page: Page, seconds: float, rate: float) -> dict[str, float]:
    """Append events of shown VMs, while somebody scrolls."""
    async with appender(cloud) as store, await database.connect(cloud.env["NEBULA_POSTGRES_DSN"], "bench") as conn:
        tips = await tips_of(conn, await page.evaluate(SHOWN))
        scrolling = asyncio.create_task(page.evaluate(SCROLL, [44, 200]))
        began = time.perf_counter()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tip = tips[number % len(tips)]
            at = datetime.now(UTC)
            ids = {"operation": str(uuid.uuid4()), "fingerprint": "f"}
            event = VmChanged(at=at, deadline=at, **ids, description=f"change {number}")
            (recorded,) = await store.append([Change(tip, [event])], Context(actor="user:bench"))
            tips[number % len(tips)] = tip.after(recorded)
        spent = time.perf_counter() - began
        await scrolling
    return {"storm_longest_ms": round(await page.evaluate(LONGEST), 1), "storm_rate": round(rate * seconds / spent, 1)}


async def tips_of(conn: database.Connection, ids: list[str]) -> list[Tip]:
    found = await conn.execute(
        "SELECT project, id, version, position, digest FROM nebula.vms WHERE id = ANY(%(ids)s)", {"ids": ids}
    )
    return [
        Tip(Ref(row["project"], "vm", row["id"]), row["version"], row["position"], row["digest"])
        for row in await found.fetchall()
    ]


@asynccontextmanager
async def appender(cloud: Cloud) -> AsyncIterator[EventStore]:
    options: dict[str, Any] = login(Common(nats_creds=Authority(cloud.home).file(HANDLERS))).options
    nc = await nats.connect(cloud.nats_url, **options)
    try:
        yield EventStore(nc, Keyring(cloud.home / "event.keys"))
    finally:
        await nc.close()
