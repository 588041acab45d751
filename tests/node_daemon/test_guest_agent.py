"""What an agent says, made fit to be told: as libvirt writes it, and as anybody might."""

from typing import Any

import libvirt
import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError
from pydantic_core import to_json

from domain.guest import (
    MOST_ADDRESSES,
    MOST_FILESYSTEMS,
    MOST_INTERFACES,
    MOST_TEXT,
    Filesystem,
    Guest,
    Interface,
    InterfaceAddress,
    OperatingSystem,
    Timezone,
)
from node_daemon.hypervisor import guest_agent
from node_daemon.hypervisor.guest_agent import CHANNEL, ask, listens, parse
from node_daemon.hypervisor.hypervisor import AgentMissing, AgentSilent, Refused

SYSTEM = {
    "os.id": "debian",
    "os.name": "Debian GNU/Linux",
    "os.pretty-name": "Debian GNU/Linux 12 (bookworm)",
    "os.version": "12 (bookworm)",
    "os.version-id": "12",
    "os.machine": "x86_64",
    "os.kernel-release": "6.1.0-26-cloud-amd64",
    "os.kernel-version": "#1 SMP PREEMPT_DYNAMIC Debian",
}
NETWORK = {
    "if.count": 2,
    "if.0.name": "lo",
    "if.0.hwaddr": "00:00:00:00:00:00",
    "if.0.addr.count": 2,
    "if.0.addr.0.type": "ipv4",
    "if.0.addr.0.addr": "127.0.0.1",
    "if.0.addr.0.prefix": 8,
    "if.0.addr.1.type": "ipv6",
    "if.0.addr.1.addr": "::1",
    "if.0.addr.1.prefix": 128,
    "if.1.name": "ens2",
    "if.1.hwaddr": "52:54:00:AB:cd:ef",
    "if.1.addr.count": 3,
    "if.1.addr.0.addr": "192.168.122.7",
    "if.1.addr.0.prefix": 24,
    "if.1.addr.1.addr": "fe80::5054:ff:feab:cdef%ens2",
    "if.1.addr.1.prefix": 200,
    "if.1.addr.2.addr": "not an address",
}
FILESYSTEMS = {
    "fs.count": 2,
    "fs.0.name": "vda15",
    "fs.0.mountpoint": "/boot/efi",
    "fs.0.fstype": "vfat",
    "fs.0.disk.count": 1,
    "fs.0.disk.0.alias": "vda",
    "fs.1.name": "vda1",
    "fs.1.mountpoint": "/",
    "fs.1.fstype": "ext4",
    "fs.1.total-bytes": 4_000_000_000,
    "fs.1.used-bytes": 1_000_000_000,
}


def test_as_libvirt_writes_it() -> None:
    zone = {"timezone.name": "CET", "timezone.offset": 3600}
    assert parse({"hostname": "web-1", **SYSTEM, **zone, **NETWORK, **FILESYSTEMS}) == Guest(
        hostname="web-1",
        os=OperatingSystem(
            id="debian",
            name="Debian GNU/Linux 12 (bookworm)",
            version="12",
            kernel_release="6.1.0-26-cloud-amd64",
            machine="x86_64",
        ),
        timezone=Timezone(name="CET", offset_seconds=3600),
        interfaces=(
            Interface(
                name="lo",
                mac="00:00:00:00:00:00",
                addresses=(
                    InterfaceAddress(address="127.0.0.1", prefix=8),
                    InterfaceAddress(address="::1", prefix=128),
                ),
            ),
            Interface(
                name="ens2",
                mac="52:54:00:ab:cd:ef",
                addresses=(
                    InterfaceAddress(address="192.168.122.7", prefix=24),
                    InterfaceAddress(address="fe80::5054:ff:feab:cdef"),
                ),
            ),
        ),
        filesystems=(
            Filesystem(mountpoint="/", device="vda1", type="ext4", total_bytes=4_000_000_000, used_bytes=1_000_000_000),
            Filesystem(mountpoint="/boot/efi", device="vda15", type="vfat"),
        ),
    )


def test_what_was_not_said_is_none_and_what_there_is_none_of_is_empty() -> None:
    assert parse({}) == Guest()
    assert parse({}).filesystems is None
    assert parse({"fs.count": 0, "if.count": 0}) == Guest(interfaces=(), filesystems=())


def test_much_is_cut_short_and_counted() -> None:
    said: dict[str, object] = {"hostname": "x" * 10_000, "fs.count": 1000, "if.count": 1000}
    for number in range(1000):
        said |= {f"fs.{number}.mountpoint": f"/{number:04}", f"if.{number}.name": f"veth{number}"}
        said |= {f"if.0.addr.{number}.addr": f"10.0.{number // 250}.{number % 250}"}
    guest = parse({**said, "if.0.addr.count": 1000})
    assert guest.hostname == "x" * (MOST_TEXT - 1) + "…"
    assert guest.filesystems is not None
    assert guest.interfaces is not None
    assert (len(guest.filesystems), guest.more_filesystems) == (MOST_FILESYSTEMS, 1000 - MOST_FILESYSTEMS)
    assert (len(guest.interfaces), guest.more_interfaces) == (MOST_INTERFACES, 1000 - MOST_INTERFACES)
    assert len(guest.interfaces[0].addresses) == MOST_ADDRESSES
    assert len(to_json(guest)) < 256 * 1024


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("\x1b]0;title\x07web\x9b6n\x00", "]0;titleweb6n"),
        ("a\u202egpj.exe\u2028b\nc", "agpj.exebc"),
        ("\ud800lone", "lone"),
        (" \t ", None),
        ("", None),
        (7, None),
        (b"bytes", None),
    ],
)
def test_texts_lose_what_is_not_for_reading(said: object, told: str | None) -> None:
    assert parse({"hostname": said}).hostname == told


@pytest.mark.parametrize("count", [-1, True, "3", 2.0, None, 10**7])
def test_counts_that_are_none(count: object) -> None:
    assert parse({"fs.count": count, "fs.0.mountpoint": "/"}).filesystems is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"hostname": "a\x1b[2J"},
        {"hostname": "a\u202eb"},
        {"hostname": "x" * 256},
        {"hostname": ""},
        {"interfaces": [{"name": "eth0", "mac": "52:54:00:AB:cd:ef"}]},
        {"interfaces": [{"name": "eth0", "addresses": [{"address": "fe80::1%\x1b"}]}]},
        {"interfaces": [{"name": "eth0", "addresses": [{"address": "localhost"}]}]},
        {"filesystems": [{"mountpoint": "/", "total_bytes": -1}]},
        {"filesystems": [{"mountpoint": "/", "total_bytes": 2**63}]},
        {"filesystems": [{"mountpoint": f"/{number}"} for number in range(65)]},
    ],
)
def test_the_other_end_makes_sure_as_well(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Guest.model_validate(wrong)


KEYS = sorted({*SYSTEM, *NETWORK, *FILESYSTEMS, "hostname", "timezone.name", "timezone.offset", "fs.9.mountpoint"})
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary())
COUNTS = st.integers(0, 2**32)
LIKELY = st.sampled_from([*SYSTEM.values(), *NETWORK.values(), *FILESYSTEMS.values()])


@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING | COUNTS | LIKELY) | st.dictionaries(st.text(), ANYTHING))
def test_whatever_a_guest_says_it_is_fit_to_be_told(said: dict[str, object]) -> None:
    guest = parse(said)
    assert Guest.model_validate_json(to_json(guest)) == guest


# ── how it is asked ─────────────────────────────────────────────────────────────────────────────────────────────────


def xml(target: str) -> str:
    return f"<domain><devices><channel type='unix'>{target}</channel></devices></domain>"


def test_who_listens() -> None:
    assert listens(xml(f"<target type='virtio' name='{CHANNEL}' state='connected'/>"))
    assert listens(xml(f"<target type='virtio' name='{CHANNEL}'/>")), "a driver that does not know"
    assert not listens(xml(f"<target type='virtio' name='{CHANNEL}' state='disconnected'/>"))
    assert not listens(xml("<target type='virtio' name='com.redhat.spice.0' state='connected'/>"))
    assert not listens("<domain/>")


class Failure(libvirt.libvirtError):  # type: ignore[misc]
    def __init__(self, code: int) -> None:
        Exception.__init__(self, f"code {code}")
        self.code = code

    def get_error_code(self) -> int:
        return self.code


UNKNOWN = Failure(libvirt.VIR_ERR_INTERNAL_ERROR)
SILENT = Failure(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)


class Domain:
    """One that runs. `answers` are what it says to each kind of question, in the order of KINDS."""

    def __init__(self, *answers: dict[str, object] | Exception, state: int = libvirt.VIR_DOMAIN_RUNNING) -> None:
        self.answers: dict[int, dict[str, object] | Exception] = dict(zip(guest_agent.KINDS, answers, strict=True))
        self.asked: list[int] = []
        self.timeouts: list[int] = []
        self._state = state

    def state(self) -> tuple[int, int]:
        return self._state, 0

    def XMLDesc(self) -> str:
        return xml(f"<target name='{CHANNEL}' state='connected'/>")

    def agentSetResponseTimeout(self, seconds: int, _: int) -> None:
        assert not self.asked
        self.timeouts.append(seconds)

    def guestInfo(self, kind: int, _: int) -> dict[str, object]:
        self.asked.append(kind)
        answer = self.answers[kind]
        if isinstance(answer, Exception):
            raise answer
        return answer


NAME: dict[str, object] = {"hostname": "web-1"}


def test_an_agent_that_does_not_know_one_thing_tells_the_others() -> None:
    domain = Domain(NAME, UNKNOWN, UnicodeDecodeError("utf-8", b"", 0, 1, "no"), dict(NETWORK), dict(FILESYSTEMS))
    guest = ask(domain)
    assert (guest.hostname, guest.os, guest.timezone) == ("web-1", None, None)
    assert len(guest.interfaces or ()) == len(guest.filesystems or ()) == 2
    assert domain.timeouts == [guest_agent.ANSWER]


def test_one_that_falls_silent_is_asked_no_more_and_what_it_said_counts() -> None:
    domain = Domain(NAME, dict(SYSTEM), SILENT, dict(NETWORK), dict(FILESYSTEMS))
    guest = ask(domain)
    assert (guest.hostname, guest.os is not None, guest.filesystems) == ("web-1", True, None)
    assert len(domain.asked) == 3


def test_one_that_says_nothing() -> None:
    with pytest.raises(AgentSilent):  # as libvirt tells the first time-out
        ask(Domain(*([{}] * 5)))
    with pytest.raises(AgentSilent):
        ask(Domain({"hostname": 7}, UNKNOWN, {"timezone.name": "CET"}, {}, {}))
    with pytest.raises(AgentSilent):
        ask(Domain(SILENT, *([{}] * 4)))
    with pytest.raises(Refused) as caught:
        ask(Domain(*([UNKNOWN] * 5)))
    assert not isinstance(caught.value, AgentSilent | AgentMissing)
    with pytest.raises(Refused, match="does not run"):
        ask(Domain(*([NAME] * 5), state=libvirt.VIR_DOMAIN_PAUSED))


def test_one_that_is_slow_at_everything_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("node_daemon.hypervisor.guest_agent.time.monotonic", lambda: next(clock))
    domain = Domain(*([NAME] * 5))
    assert ask(domain).hostname == "web-1"
    assert len(domain.asked) == 2
