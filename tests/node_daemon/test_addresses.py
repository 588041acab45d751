"""Who is believed about a guest's addresses, and that none of an earlier boot is shown."""

from pathlib import Path
from typing import Any

import libvirt
import pytest

from domain.contract import Power
from domain.guest import AddressSource
from node_daemon.hypervisor import address_sources
from node_daemon.hypervisor.hypervisor import Have, Lease, Sighting
from node_daemon.network import addresses
from node_daemon.network.addresses import EARLY, Addresses, Earlier, EarlierBoots, current
from tests.waiting import eventually

VM, MAC = "vm", "52:54:00:00:00:07"
NEW = Earlier(boots=1, host_boot="a", resets=0)
OLD = NEW.model_copy(update={"leases": {"192.0.2.7": 100}, "arp": ("192.0.2.7",)})
LEASED = Sighting(leases=(Lease("192.0.2.7", 100),), arp=("192.0.2.7",))


def shown(known: tuple[AddressSource, ...] | None) -> list[str] | None:
    return None if known is None else [f"{one.address} {one.source}" for one in known]


SPOKEN = current(Sighting(agent=("192.0.2.9",)), NEW, None)


@pytest.mark.parametrize(
    ("sighting", "earlier", "before", "known"),
    [
        (Sighting(), NEW, None, []),
        (LEASED, NEW, None, ["192.0.2.7 lease"]),
        (Sighting(("192.0.2.9",), LEASED.leases, LEASED.arp), NEW, None, ["192.0.2.9 agent"]),
        (Sighting((), LEASED.leases, LEASED.arp), NEW, None, []),
        (LEASED, NEW, SPOKEN, ["192.0.2.9 agent"]),
        (Sighting(), NEW, SPOKEN, ["192.0.2.9 agent"]),
        (Sighting(()), NEW, SPOKEN, []),
        (Sighting(arp=("192.0.2.8",)), NEW, None, ["192.0.2.8 arp"]),
        (LEASED, OLD, None, []),
        (Sighting(leases=(Lease("192.0.2.7", 101),)), OLD, None, ["192.0.2.7 lease"]),
        (Sighting(leases=(Lease("192.0.2.7"),)), OLD, None, ["192.0.2.7 lease"]),
        (Sighting(leases=(*LEASED.leases, Lease("192.0.2.8", 100))), OLD, None, ["192.0.2.8 lease"]),
        (Sighting(arp=("192.0.2.7", "192.0.2.8")), OLD, None, ["192.0.2.8 arp"]),
        (Sighting(("192.0.2.7",), LEASED.leases), OLD, None, ["192.0.2.7 agent"]),
    ],
)
def test_who_is_believed(sighting: Sighting, earlier: Earlier, before: Any, known: list[str]) -> None:
    assert shown(current(sighting, earlier, before)) == known


class Seen:
    """A hypervisor that has one sighting to tell; `told` counts how often it did."""

    def __init__(self) -> None:
        self.now = Sighting()
        self.told = 0

    async def addresses(self, vm: str, mac: str) -> Sighting:
        self.told += 1
        return self.now


class Guest:
    """The addresses of a guest whose hypervisor and clock are the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = Seen()
        self.seconds = 0.0
        self.nudges = 0
        self.addresses = self._new()

    def _new(self) -> Addresses:
        return Addresses(VM, self.seen, EarlierBoots(self.folder), self._nudge, lambda: self.seconds)  # type: ignore[arg-type]

    def _nudge(self) -> None:
        self.nudges += 1

    def restart_daemon(self) -> None:
        self.addresses.stop()
        self.addresses = self._new()

    async def look(self, power: Power, boots: int = 1, resets: int = 0) -> list[str] | None:
        """What is known after a look at the domain and, where it runs, one question more."""
        before = self.seen.told
        self.addresses.follow(MAC, Have(VM, power, boots=boots, host_boot="a"), resets)
        if power is Power.ON:
            await eventually(lambda: self.seen.told >= before + 2, "it was asked")
        return shown(self.addresses.known)


@pytest.fixture
async def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(addresses, "MISSING", 0.001)
    monkeypatch.setattr(addresses, "KNOWN", 0.001)
    monkeypatch.setattr(addresses, "LATER", 0.001)
    guest = Guest(tmp_path)
    yield guest
    guest.addresses.stop()


async def booted(guest: Guest) -> None:
    """It has run once, under our eyes, and has a lease."""
    assert await guest.look(Power.ABSENT) is None
    assert await guest.look(Power.ON) == []
    guest.seconds += EARLY
    guest.seen.now = LEASED
    assert await guest.look(Power.ON) == ["192.0.2.7 lease"]
    assert guest.nudges == 1


@pytest.mark.parametrize("how", ["off and on", "a higher count", "a reset"])
async def test_a_lease_of_an_earlier_boot_is_not_shown(guest: Guest, how: str) -> None:
    await booted(guest)
    again: dict[str, int] = {"resets": 1} if how == "a reset" else {"boots": 2}
    if how == "off and on":
        assert await guest.look(Power.OFF) is None
    assert await guest.look(Power.ON, **again) == []
    guest.seconds += EARLY
    assert await guest.look(Power.ON, **again) == []
    guest.restart_daemon()
    assert await guest.look(Power.ON, **again) == [], "the books know"
    guest.seen.now = Sighting(leases=(Lease("192.0.2.7", 150),), arp=("192.0.2.7",))
    assert await guest.look(Power.ON, **again) == ["192.0.2.7 lease"]


async def test_nor_where_the_first_answer_of_a_boot_is_late(guest: Guest) -> None:
    await booted(guest)
    await guest.look(Power.OFF)
    guest.addresses.follow(MAC, Have(VM, Power.ON, boots=2, host_boot="a"), 0)
    guest.seconds += EARLY
    assert await guest.look(Power.ON, boots=2) == []


async def test_what_is_seen_when_a_boot_begins_is_older(guest: Guest) -> None:
    guest.seen.now = LEASED
    await guest.look(Power.OFF, boots=0)
    assert await guest.look(Power.ON) == []
    guest.seconds += EARLY
    assert await guest.look(Power.ON) == []
    guest.seen.now = Sighting()
    await guest.look(Power.ON)
    guest.seen.now = Sighting(arp=("192.0.2.7",))
    assert await guest.look(Power.ON) == ["192.0.2.7 arp"], "it was away"


async def test_a_pause_and_a_daemon_that_starts_again_end_no_boot(guest: Guest) -> None:
    await booted(guest)
    await guest.look(Power.PAUSED)
    await guest.look(Power.UNKNOWN)
    assert await guest.look(Power.ON) == ["192.0.2.7 lease"]
    guest.restart_daemon()
    assert await guest.look(Power.ON) == ["192.0.2.7 lease"]


async def test_that_addresses_are_gone_is_news_and_that_there_are_none_yet_is_not(guest: Guest) -> None:
    await booted(guest)
    await guest.look(Power.ON, resets=1)
    assert guest.nudges == 2, "those of before the reset are not its own any more"
    await guest.look(Power.ON, resets=2)
    assert guest.nudges == 2


async def test_books_that_cannot_be_read_or_written_are_empty(tmp_path: Path) -> None:
    books = EarlierBoots(tmp_path / "file")
    (tmp_path / "file").write_text("")
    books.write(VM, OLD)
    assert books.read(VM) is None
    books.forget(VM)
    books = EarlierBoots(tmp_path / "books")
    books.write(VM, OLD)
    assert books.read(VM) == OLD
    books.write(VM, NEW)
    assert list((tmp_path / "books").iterdir()) == []


# ── what libvirt says ───────────────────────────────────────────────────────────────────────────────────────────────


class Domain:
    """A domain of libvirt as far as its addresses go: what each source says, and leases with their ends."""

    def __init__(self, said: dict[int, Any], *, connected: bool = True, leases: Any = ()) -> None:
        self._said = said
        self._state = "connected" if connected else "disconnected"
        self._leases = leases
        self.asked: list[int] = []

    def interfaceAddresses(self, source: int, _: int) -> Any:
        self.asked.append(source)
        if source not in self._said:
            raise libvirt.libvirtError("not supported")
        return self._said[source]

    def XMLDesc(self) -> str:
        channel = f"<channel><target name='org.qemu.guest_agent.0' state='{self._state}'/></channel>"
        interface = "<interface type='network'><source network='default'/></interface>"
        return f"<domain><devices>{channel}{interface}</devices></domain>"

    def agentSetResponseTimeout(self, *_: int) -> None: ...

    def connect(self) -> "Domain":
        return self

    def networkLookupByName(self, name: str) -> "Domain":
        assert name == "default"
        return self

    def DHCPLeases(self, mac: str) -> Any:
        assert mac == MAC
        return self._leases


AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
LEASE = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE
ARP = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP


def interface(*texts: Any, mac: Any = "52:54:00:00:00:07") -> dict[str, Any]:
    return {"hwaddr": mac, "addrs": [{"addr": text, "prefix": 24} for text in texts]}


def test_each_witness_is_asked_for_our_interface() -> None:
    said = {
        AGENT: {"lo": interface("127.0.0.1", mac=None), "eth0": interface("192.0.2.9"), "br0": interface("10.0.0.1")},
        LEASE: {"vnet0": interface("192.0.2.7", "192.0.2.6")},
        ARP: {"vnet0": interface("192.0.2.9"), "vnet1": interface("192.0.2.1", mac="52:54:00:00:00:01")},
    }
    leases = [{"ipaddr": "192.0.2.7", "expirytime": 100}, {"ipaddr": "192.0.2.6", "expirytime": 0}, {"ipaddr": None}]
    assert address_sources.ask(Domain(said, leases=leases), MAC) == Sighting(
        agent=("10.0.0.1", "192.0.2.9"), leases=(Lease("192.0.2.6"), Lease("192.0.2.7", 100)), arp=("192.0.2.9",)
    )


def test_who_does_not_answer_says_nothing() -> None:
    assert address_sources.ask(Domain({}), MAC) == Sighting()
    away = Domain({AGENT: {"eth0": interface("192.0.2.9")}}, connected=False)
    assert address_sources.ask(away, MAC) == Sighting()
    assert AGENT not in away.asked
    other = Domain({AGENT: {"eth0": interface("192.0.2.9", mac="52:54:00:00:00:01")}})
    assert address_sources.ask(other, MAC).agent is None
    assert address_sources.ask(Domain({AGENT: {"eth0": {"hwaddr": MAC, "addrs": None}}}), MAC).agent == ()


def test_what_makes_no_sense_was_not_said() -> None:
    texts = ("fe80::1%eth0", "127.0.0.1", "0.0.0.0", "224.0.0.1", "\ud800", "", None, 7.5, "1.2.3", "2001:DB8::7%x")
    assert address_sources.ask(Domain({AGENT: {"eth0": interface(*texts)}}), MAC).agent == ("2001:db8::7",)
