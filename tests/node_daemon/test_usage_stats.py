"""What is made of libvirt's statistics, whatever is in them."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from domain.guest_usage import MOST_COUNT, DiskUsage, GuestUsage, InterfaceUsage, Totals
from node_daemon.hypervisor.usage_stats import parse

#: As libvirt 9.0 answers for a guest with two disks and one interface.
STATS: dict[str, Any] = {
    **{"state.state": 1, "state.reason": 1, "cpu.time": 5_000_000_000, "cpu.user": 1, "cpu.system": 2},
    **{"vcpu.current": 2, "vcpu.maximum": 2, "vcpu.0.state": 1, "vcpu.0.time": 7, "vcpu.1.state": 1},
    **{"balloon.current": 524288, "balloon.maximum": 1048576, "balloon.rss": 300000, "balloon.last-update": 0},
    **{"net.count": 1, "net.0.name": "nblabcd", "net.0.rx.bytes": 10, "net.0.rx.pkts": 1, "net.0.rx.errs": 0},
    **{"net.0.rx.drop": 0, "net.0.tx.bytes": 20, "net.0.tx.pkts": 2, "net.0.tx.errs": 0, "net.0.tx.drop": 0},
    **{"block.count": 2, "block.0.name": "vda", "block.0.path": "/d/root.qcow2", "block.0.backingIndex": 1},
    **{"block.0.rd.reqs": 4, "block.0.rd.bytes": 4096, "block.0.rd.times": 9, "block.0.wr.reqs": 5},
    **{"block.0.wr.bytes": 8192, "block.0.wr.times": 8, "block.0.fl.reqs": 1, "block.0.fl.times": 7},
    **{"block.0.allocation": 100, "block.0.capacity": 1000, "block.0.physical": 200},
    **{"block.1.name": "sda", "block.1.path": "/d/cidata.iso", "block.1.rd.bytes": 4, "block.1.rd.reqs": 1},
    **{"block.1.wr.bytes": 0, "block.1.allocation": 1, "block.1.capacity": 2, "block.1.physical": 2},
}


def test_a_guest() -> None:
    found = parse(STATS, 7)
    assert found == GuestUsage(
        boot=7,
        state=1,
        cpu_ns=5_000_000_000,
        vcpus=2,
        memory_maximum=2**30,
        memory_current=2**29,
        memory_rss=300000 * 1024,
        disks=(
            DiskUsage("vda", "/d/root.qcow2", 4096, 4, 9, 8192, 5, 8, 1, 7, 100, 1000, 200),
            DiskUsage("sda", "/d/cidata.iso", 4, 1, None, 0, None, None, None, None, 1, 2, 2),
        ),
        interfaces=(InterfaceUsage("nblabcd", "", 10, 1, 0, 0, 20, 2, 0, 0),),
    )
    assert found.totals == Totals(5_000_000_000, 300000 * 1024, 101, 4100, 8192, 10, 20)
    assert found.size.model_dump() == {"cpus": 2, "memory_bytes": 2**30, "disk_bytes": 1002}


def test_what_the_test_driver_knows() -> None:
    found = parse({"state.state": 1, "state.reason": 0}, 1)
    assert found == GuestUsage(boot=1, state=1)
    assert found.totals == Totals()


@pytest.mark.parametrize("wrong", [None, -1, MOST_COUNT + 1, 2**64, 1.5, True, "7", [7], {}, float("nan")])
def test_what_is_no_number_is_unknown(wrong: object) -> None:
    for name in STATS:
        if name.endswith((".name", ".path", ".count")):
            continue
        parse({**STATS, name: wrong})
    changed = {**STATS, "cpu.time": wrong, "block.0.rd.bytes": wrong, "balloon.rss": wrong}
    found = parse(changed)
    assert (found.cpu_ns, found.memory_rss, found.disks[0].read_bytes) == (None, None, None)
    assert found.totals.disk_read == 4, "of the other disk"
    assert found.sources != parse(STATS).sources, "so the sum is no one's successor"


def test_kib_that_are_too_many_bytes_are_unknown() -> None:
    assert parse({"balloon.rss": MOST_COUNT}).memory_rss is None


@pytest.mark.parametrize(
    ("wrong", "disks"),
    [
        ({"block.count": 10**12}, ["vda", "sda"]),
        ({"block.count": "2"}, []),
        ({"block.count": 1}, ["vda"]),
        ({"block.1.name": "vda"}, ["vda"]),
        ({"block.1.name": ""}, ["vda"]),
        ({"block.1.name": 7}, ["vda"]),
        ({"block.0.name": "x" * 5000}, ["sda"]),
        ({"block.0.path": 7}, ["vda", "sda"]),
    ],
)
def test_devices_have_names_of_their_own(wrong: dict[str, Any], disks: list[str]) -> None:
    assert [disk.device for disk in parse({**STATS, **wrong}).disks] == disks


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", ".", "x\0y"])
def test_no_other_file_is_looked_at_for_a_bridge(name: str) -> None:
    assert parse({"net.count": 1, "net.0.name": name}).interfaces[0].bridge == ""


VALUES = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.booleans())


@given(st.dictionaries(st.sampled_from([*STATS, "block.7.name", "net.3.name"]), VALUES))
def test_anything_is_read(stats: dict[str, Any]) -> None:
    found = parse(stats)
    numbers = [found.cpu_ns, found.memory_rss, *(disk.read_bytes for disk in found.disks)]
    assert all(number is None or 0 <= number <= MOST_COUNT for number in numbers)
    assert hash(found.sources) is not None
