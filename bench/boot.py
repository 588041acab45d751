"""From POST to a running domain, next to the same overlay + define + create by bare libvirt-python in the same run.

Real QEMU; the image holds no operating system, since what runs in the guest is not what is measured. The bare domain is
the platform's own XML with another name, disk and address, so it has no rules of the host's firewall. Platform and
floor take turns, each of which begins at rest; each pair of turns makes one ratio, and reported is the median.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import libvirt

from bench.bare import Bare
from bench.cloud import IMAGE, PROJECT, Cloud, cloud, expect, percentile
from bench.http import Connection
from runtime.local.libvirtd import ensure_libvirt
from runtime.tasks.tasks import in_thread

ROUNDS = 20
#: Seconds before each turn: the kernel still removes the guest of the turn before, and its network device.
SETTLED = 0.3
URI = "qemu:///system"


@dataclass
class Times:
    """Seconds, one entry a round."""

    accepted: list[float] = field(default_factory=list)
    defined: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


async def measure() -> dict[str, Any]:
    await ensure_libvirt(URI)
    libvirt.virEventRegisterDefaultImpl()
    connection = await asyncio.to_thread(libvirt.open, URI)
    ticking = asyncio.create_task(asyncio.to_thread(_tick, stop := asyncio.Event()))
    seen: dict[str, float] = {}

    def noticed(_: Any, domain: libvirt.virDomain, event: int, *__: Any) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_DEFINED:
            seen.setdefault(domain.UUIDString(), time.perf_counter())

    connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, noticed, None)
    times = Times()
    try:
        async with cloud(["gateway", "handlers", "projections", "node"], NEBULA_LIBVIRT_URI=URI) as made:
            await made.prepare()
            async with made.connection() as http:
                await _round(made, http, connection, seen, Times())  # warm
                for _ in range(ROUNDS):
                    await _round(made, http, connection, seen, times)
    finally:
        stop.set()
        connection.close()
        await ticking
    return {
        "create_to_running_ms_p50": _ms(times.running, 0.50),
        "bare_libvirt_ms_p50": _ms(times.bare, 0.50),
        "ratio": _ratio(times.running, times.bare),
        "post_to_202_ms_p50": _ms(times.accepted, 0.50),
        "post_to_202_ms_p95": _ms(times.accepted, 0.95),
        "202_to_define_ms_p50": _ms(times.defined, 0.50),
        "202_to_define_ms_p95": _ms(times.defined, 0.95),
        "rounds": ROUNDS,
    }


def _ratio(ours: list[float], floor: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(ours, floor, strict=True)), 3)


def _ms(values: list[float], share: float) -> float:
    return round(percentile(values, share) * 1e3, 1)


def _tick(stop: asyncio.Event) -> None:
    while not stop.is_set():
        libvirt.virEventRunDefaultImpl()


async def _round(
    made: Cloud, http: Connection, connection: libvirt.virConnect, seen: dict[str, float], times: Times
) -> None:
    """One VM by the platform, then one by bare libvirt from the same XML."""
    path = f"/v1/projects/{PROJECT}/vms"
    size = {"vcpus": 1, "memory_mib": 128, "disk_gib": 1}
    await asyncio.sleep(SETTLED)
    started = time.perf_counter()
    accepted = await expect(http, "POST", path, {"name": "bench", "image": IMAGE, **size})
    answered = time.perf_counter()
    operation = await expect(http, "GET", f"/v1/operations/{accepted['operation']['id']}?wait=60s")
    done = time.perf_counter()
    if operation["status"] != "succeeded":
        raise RuntimeError(f"create: {operation}")
    vm = accepted["vm"]["id"]
    times.accepted.append(answered - started)
    times.running.append(done - started)
    while vm not in seen:  # noqa: ASYNC110  (libvirt says it on another thread, perhaps later than the platform)
        await asyncio.sleep(0.001)
    times.defined.append(max(0.0, seen[vm] - answered))
    xml = await asyncio.to_thread(lambda: connection.lookupByUUIDString(vm).XMLDesc(0))
    await expect(http, "DELETE", f"{path}/{vm}?wait=60s")
    await asyncio.sleep(SETTLED)
    times.bare.append(await in_thread(_bare, made, connection, xml))


def _bare(made: Cloud, connection: libvirt.virConnect, like: str) -> float:
    """Seconds for overlay, define and create of an equal domain; it is removed again afterwards."""
    bare = Bare(made.home, connection, like)
    started = time.perf_counter()
    bare.make()
    took = time.perf_counter() - started
    bare.remove()
    return took
