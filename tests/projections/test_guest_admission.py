"""Who may have the data of a guest: the guest itself, while it boots."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from domain import mac, node
from domain.contract import NodeInfo, Power
from domain.contract.guest_data import GuestSeed
from domain.vm import RecordGuestReady, ResumeVm, StopVm, SuspendVm
from eventstore.log.envelope import Ref
from projections import seeds
from projections.database import ReadModelsUnavailable
from projections.guest_data.admission import stranger
from projections.guest_data.source import Source
from projections.seeds import AFTER_READY
from tests.projections.cloud import now
from tests.projections.guests import Guests, guests

__all__ = ["guests"]

GUEST, OTHER, HOST = "192.0.2.10", "192.0.2.11", "192.0.2.1"


class Address:
    """Lets requests come from another address than the one of the test."""

    def __init__(self, source: Source, client: str) -> None:
        self._source, self._client = source, client

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._source({**scope, "client": (self._client, 40000), "server": (HOST, 8775)}, receive, send)


class Bridge:
    """The data source of a node whose guests use these MAC addresses."""

    def __init__(self, guests: Guests) -> None:
        self.used: dict[str, frozenset[str]] = {}
        self.source = replace(guests.source, neighbours=lambda address, _: self.used.get(address, frozenset()))

    async def get(self, client: str, secret: str, name: str = "user-data", **form: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=Address(self.source, client))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}:8775") as http:
            return await (http.post(f"/{secret}/{name}", data=form) if form else http.get(f"/{secret}/{name}"))

    def refusals(self, cause: str) -> float:
        found = self.source.status.registry.get_sample_value("nebula_guest_data_refusals_total", {"cause": cause})
        return found or 0.0


@pytest.fixture
def bridge(guests: Guests) -> Bridge:
    return Bridge(guests)


@pytest.fixture
async def real(guests: Guests) -> Ref:
    """A running VM of a node that is not simulated, with user-data."""
    cloud = guests.cloud
    info = NodeInfo(
        node="host-2",
        region="default",
        vcpus=800,
        memory_mib=819200,
        disk_gib=10000,
        virt_type="kvm",
        seed_url="http://192.0.2.1:8775/",
        version="1",
    )
    await cloud.do(Ref("system", "node", "host-2"), node.RegisterNode(at=now(), node="host-2", info=info))
    ref = await cloud.create(user_data=await cloud.vault.seal("k" * 8, b"#!/bin/sh\n"))
    await cloud.place(ref, "host-2")
    await cloud.report(ref, Power.ON, 1, node="host-2")
    return ref


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Moves the clock of the projections."""
    ahead = [0.0]

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=ahead[0])

    monkeypatch.setattr(seeds, "datetime", Later)
    yield lambda seconds: ahead.__setitem__(0, seconds)


async def test_only_the_address_of_the_vm_opens_its_seed(guests: Guests, bridge: Bridge, real: Ref) -> None:
    secret, own = await guests.secret(real), mac.derived(real.id)
    bridge.used = {GUEST: frozenset({own}), OTHER: frozenset({"52:54:00:00:00:01"})}
    assert (await bridge.get(GUEST, secret)).content == b"#!/bin/sh\n"
    unknown = await bridge.get(GUEST, "A" * 32)
    before = bridge.refusals("address")
    for client in (OTHER, "192.0.2.12", HOST, "::ffff:192.0.2.11", "nonsense"):
        answer = await bridge.get(client, secret)
        assert (answer.status_code, answer.content) == (unknown.status_code, unknown.content), client
        assert answer.headers == unknown.headers
        posted = await bridge.get(client, secret, "phone-home", instance_id=real.id)
        assert (posted.status_code, posted.content) == (unknown.status_code, unknown.content), client
    assert bridge.refusals("address") == before + 10
    bridge.used[GUEST] = frozenset({own, "52:54:00:00:00:01"})
    assert (await bridge.get(GUEST, secret)).status_code == 404, "two interfaces claim the address"


async def test_a_copy_is_bound_to_the_address_too(
    guests: Guests, bridge: Bridge, real: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await guests.secret(real)
    bridge.used = {GUEST: frozenset({mac.derived(real.id)}), OTHER: frozenset({"52:54:00:00:00:01"})}
    assert (await bridge.get(GUEST, secret)).status_code == 200

    async def find(*_: Any) -> Any:
        raise ReadModelsUnavailable("Postgres is away")

    monkeypatch.setattr(seeds, "find", find)
    assert (await bridge.get(GUEST, secret)).content == b"#!/bin/sh\n", "a reboot gets its seed"
    assert (await bridge.get(OTHER, secret)).status_code == 404


async def test_user_data_ends_a_while_after_the_guest_is_ready(
    guests: Guests, bridge: Bridge, real: Ref, clock: Callable[[float], None]
) -> None:
    cloud, secret = guests.cloud, await guests.secret(real)
    bridge.used = {GUEST: frozenset({mac.derived(real.id)})}
    await cloud.do(real, RecordGuestReady(at=now(), vm=real.id, boots=1, boot="b-1"))
    await cloud.caught_up()
    assert (await bridge.get(GUEST, secret)).content == b"#!/bin/sh\n", "within the bound"
    before = bridge.refusals("finished")
    clock(AFTER_READY + 5)
    late = await bridge.get(GUEST, secret)
    assert (late.status_code, late.content) == (200, b"")
    assert bridge.refusals("finished") == before + 1
    assert f"instance-id: {real.id}" in (await bridge.get(GUEST, secret, "meta-data")).text, (
        "a missed reboot is no harm"
    )
    await cloud.report(real, Power.ON, 1, node="host-2", resets=1)
    await cloud.caught_up()
    assert (await bridge.get(GUEST, secret)).content == b"#!/bin/sh\n", "it boots again"


async def test_nothing_is_served_while_the_vm_is_off(guests: Guests, bridge: Bridge, real: Ref) -> None:
    cloud, secret = guests.cloud, await guests.secret(real)
    bridge.used = {GUEST: frozenset({mac.derived(real.id)})}
    await cloud.ask(real, SuspendVm)
    await cloud.report(real, Power.SUSPENDED, 1, node="host-2")
    await cloud.caught_up()
    assert (await bridge.get(GUEST, secret)).status_code == 404
    await cloud.ask(real, ResumeVm)
    await cloud.report(real, Power.ON, 1, node="host-2")
    await cloud.caught_up()
    assert (await bridge.get(GUEST, secret)).status_code == 200
    await cloud.ask(real, StopVm)
    await cloud.report(real, Power.OFF, 1, node="host-2")
    await cloud.caught_up()
    assert [(await bridge.get(GUEST, secret, name)).status_code for name in ("meta-data", "user-data")] == [404, 404]
    assert (await bridge.get(GUEST, secret, "phone-home", instance_id=real.id)).status_code == 404


async def test_a_guest_calls_once_in_each_boot(guests: Guests, bridge: Bridge, real: Ref) -> None:
    secret = await guests.secret(real)
    bridge.used = {GUEST: frozenset({mac.derived(real.id)})}
    heard: list[str] = []

    async def handlers(msg: Any) -> None:
        heard.append(msg.subject)
        await msg.respond(b'{"ok": {}}')

    sub = await guests.cloud.nc.subscribe("nebula.commands.>", cb=handlers)
    form = {"instance_id": real.id, "boot_id": "b-1"}
    first = await bridge.get(GUEST, secret, "phone-home", **form)
    repeat = await bridge.get(GUEST, secret, "phone-home", **form)
    another = await bridge.get(GUEST, secret, "phone-home", **form, hostname="other")
    rebooted = await bridge.get(GUEST, secret, "phone-home", **{**form, "boot_id": "b-2"})
    await sub.unsubscribe()
    assert [each.status_code for each in (first, repeat, another, rebooted)] == [200, 200, 409, 200]
    assert len(heard) == 2
    assert bridge.refusals("repeat") == 1


def test_the_host_itself_may_fetch_what_it_puts_on_a_disk() -> None:
    seed = GuestSeed(project="default", vm="11111111-2222-4333-8444-777777777777", meta_data="", user_data=b"")

    def nobody(_: str, __: str) -> frozenset[str]:
        return frozenset()

    assert stranger(seed, HOST, HOST, nobody) == "the client is the host"
    on_disk = seed.model_copy(update={"on_disk": True})
    assert stranger(on_disk, HOST, HOST, nobody) is None
    assert stranger(on_disk, HOST, HOST, nobody, posted=True) == "the client is the host"
    assert stranger(on_disk, OTHER, HOST, nobody) is not None
    assert stranger(seed, None, HOST, nobody) is not None
    assert stranger(seed, OTHER, None, nobody) is not None
    assert stranger(seed.model_copy(update={"simulated": True}), OTHER, HOST, nobody) is None
