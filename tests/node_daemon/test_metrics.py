"""The text for Prometheus, by Prometheus's own parser; and the listener, whatever its clients do."""

import asyncio
import math
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from domain.guest_usage import DiskUsage, GuestUsage, HostUsage, InterfaceUsage
from node_daemon.usage import listener as module
from node_daemon.usage.listener import HEAD, MOST, Listener
from node_daemon.usage.metrics import CONTENT_TYPE, OLD, of, text
from node_daemon.usage.sampler import Sample, Sampling
from runtime.tasks.tasks import end
from tests.waiting import eventually

#: The names in the READMEs of kumina's exporter and of its successors, as far as this node knows the numbers.
OURS = re.findall(
    r"\w+",
    """
libvirt_up
libvirt_domain_info_maximum_memory_bytes libvirt_domain_info_memory_usage_bytes libvirt_domain_info_virtual_cpus
libvirt_domain_info_cpu_time_seconds_total libvirt_domain_info_vstate
libvirt_domain_block_stats_read_bytes_total libvirt_domain_block_stats_read_requests_total
libvirt_domain_block_stats_read_time_seconds_total libvirt_domain_block_stats_write_bytes_total
libvirt_domain_block_stats_write_requests_total libvirt_domain_block_stats_write_time_seconds_total
libvirt_domain_block_stats_flush_requests_total libvirt_domain_block_stats_flush_time_seconds_total
libvirt_domain_block_stats_allocation_bytes libvirt_domain_block_stats_capacity_bytes
libvirt_domain_block_stats_physicalsize_bytes
libvirt_domain_interface_stats_receive_bytes_total libvirt_domain_interface_stats_receive_packets_total
libvirt_domain_interface_stats_receive_errors_total libvirt_domain_interface_stats_receive_drops_total
libvirt_domain_interface_stats_transmit_bytes_total libvirt_domain_interface_stats_transmit_packets_total
libvirt_domain_interface_stats_transmit_errors_total libvirt_domain_interface_stats_transmit_drops_total
libvirt_domain_memory_stats_rss_bytes libvirt_domain_memory_stats_unused_bytes
libvirt_domain_memory_stats_available_bytes libvirt_domain_memory_stats_usable_bytes
libvirt_domain_memory_stats_actual_balloon_bytes
""",
)
VM, OTHER = "0e0f5f6e-0000-4000-8000-000000000001", "0e0f5f6e-0000-4000-8000-000000000002"
GUEST = GuestUsage(
    **{"boot": 1, "state": 1, "cpu_ns": 1_500_000_000, "vcpus": 2, "memory_maximum": 8, "memory_current": 4},
    **{"memory_rss": 3, "memory_available": 7, "memory_unused": 2, "memory_usable": 5},
    disks=(DiskUsage("vda", "/d/root.qcow2", 1, 2, 3_000_000_000, 4, 5, 6_000_000_000, 7, 8_000_000_000, 9, 10, 11),),
    interfaces=(InterfaceUsage("nblabcd", "virbr0", 1, 2, 3, 4, 5, 6, 7, 8),),
)
HOST = HostUsage("b", 10**9, 2, 100, 50, 1000, 10, 1, 2, 3, 4)
SAMPLE = Sample("n1", 100.0, 1_700_000_000.5, {VM: GUEST}, HOST, {VM: "web"})


def parsed(body: bytes) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The values by the name and the labels, of text that Prometheus accepts: each name has one type, in one place."""
    families = list(text_string_to_metric_families(body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in families:
        assert family.type in ("counter", "gauge") and family.documentation
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total")
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), "twice"
            found[sample.name][labels] = sample.value
    return found


def test_names_units_and_labels_are_those_that_dashboards_know() -> None:
    found = parsed(text([SAMPLE], 100, 60))
    ours = {name for name in found if name.startswith("libvirt_")}
    assert ours == set(OURS)
    domain = ("domain", f"nebula-{VM}")
    disk = (domain, ("source_file", "/d/root.qcow2"), ("target_device", "vda"))
    interface = (domain, ("source_bridge", "virbr0"), ("target_device", "nblabcd"))
    assert found["libvirt_up"] == {(): 1}
    assert found["libvirt_domain_info_cpu_time_seconds_total"] == {(domain,): 1.5}
    assert found["libvirt_domain_info_vstate"] == {(domain,): 1}
    assert found["libvirt_domain_block_stats_read_time_seconds_total"] == {disk: 3}
    assert found["libvirt_domain_block_stats_write_bytes_total"] == {disk: 4}
    assert found["libvirt_domain_interface_stats_receive_bytes_total"] == {interface: 1}
    assert found["libvirt_domain_interface_stats_transmit_drops_total"] == {interface: 8}
    assert found["libvirt_domain_memory_stats_actual_balloon_bytes"] == {(domain,): 4}
    assert found["nebula_vm_info"] == {(domain, ("node", "n1"), ("project", "web"), ("uuid", VM)): 1}
    node = (("node", "n1"),)
    assert found["nebula_node_cpu_seconds_total"] == {node: 1}
    assert found["nebula_node_disk_used_bytes"] == {node: 10}
    assert found["nebula_node_sample_timestamp_seconds"] == {node: 1_700_000_000.5}
    assert len([name for name in found if name.startswith("nebula_node_")]) == 11


def test_what_is_unknown_is_left_out() -> None:
    unknown = replace(SAMPLE, guests={VM: GuestUsage(state=1), OTHER: GUEST}, host=HostUsage(), projects={})
    found = parsed(text([unknown], 100, 60))
    assert len(found["libvirt_domain_info_vstate"]) == 2
    assert len(found["libvirt_domain_info_cpu_time_seconds_total"]) == 1
    assert "nebula_vm_info" not in found and "nebula_node_cpus" not in found


@pytest.mark.parametrize(
    ("samples", "now"),
    [
        ([], 100.0),
        ([replace(SAMPLE, guests=None)], 100.0),
        ([SAMPLE], 161.0),
        ([SAMPLE, replace(SAMPLE, node="n2", guests=None)], 100.0),
    ],
    ids=["none", "failed", "old", "one of two failed"],
)
def test_a_hypervisor_that_does_not_answer_is_not_up(samples: list[Sample], now: float) -> None:
    found = parsed(text(samples, now, 60))
    assert found["libvirt_up"] == {(): 0}
    assert ("libvirt_domain_info_vstate" in found) == (len(samples) == 2)
    assert ("nebula_node_cpus" in found) == bool(samples), "the host was measured"


def test_a_hypervisor_without_guests_is_up() -> None:
    assert parsed(text([replace(SAMPLE, guests={})], 100, 60))["libvirt_up"] == {(): 1}


def test_nodes_of_one_process_are_told_apart() -> None:
    other = replace(SAMPLE, node="n2", guests={OTHER: GUEST}, projects={OTHER: "db"})
    found = parsed(text([SAMPLE, other], 100, 60))
    assert len(found["nebula_node_cpus"]) == len(found["libvirt_domain_info_vstate"]) == 2
    assert {dict(labels)["node"] for labels in found["nebula_vm_info"]} == {"n1", "n2"}


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\\n", "é", "a\udcffb", "x{y}=1,", "# HELP"])
def test_any_name_is_a_label(name: str) -> None:
    disk = DiskUsage(name, name, read_bytes=1)
    found = parsed(text([replace(SAMPLE, guests={VM: GuestUsage(disks=(disk,))}, projects={VM: name})], 100, 60))
    (labels,) = found["libvirt_domain_block_stats_read_bytes_total"]
    shown = dict(labels)["target_device"]
    assert shown == name or (re.search("\udcff", name) and "udcff" in shown)


def test_the_samples_of_a_process_that_has_none_yet() -> None:
    assert not math.isnan(parsed(of(Sampling(30)))["libvirt_up"][()])
    assert OLD > 2


# ── the listener ────────────────────────────────────────────────────────────────────────────────────────────────────


def body() -> bytes:
    return text([SAMPLE], 100, 60)


@asynccontextmanager
async def listening(port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    made = Listener(host, port, body)
    running = asyncio.create_task(made.run())
    await eventually(lambda: made.port is not None, "it listens")
    yield made
    assert not running.done()
    await end([running])


async def sent(port: int | None, request: bytes, host: str = "127.0.0.1") -> tuple[int, Mapping[str, str], bytes]:
    """The status, the headers and the body of the answer; 0 if there is none."""
    assert port is not None
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    try:
        answer = await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        answer = b""
    writer.close()
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    status = int(lines[0].split()[1]) if lines[0] else 0
    return status, dict(line.split(": ", 1) for line in lines[1:]), rest


async def test_metrics_are_served() -> None:
    async with listening() as made:
        for path in (b"/metrics", b"/metrics?x=1"):
            status, headers, answer = await sent(made.port, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (status, answer, headers["Content-Type"]) == (200, body(), CONTENT_TYPE)
            assert headers["Content-Length"] == str(len(answer))
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        for piece in (b"GET /met", b"rics HTTP/1.0\r\n", b"\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * HEAD + b"\r\n\r\n", 431),
    ],
)
async def test_nothing_else_is_served(request_: bytes, status: int) -> None:
    async with listening() as made:
        assert (await sent(made.port, request_))[0] == status
        assert (await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 200


async def test_clients_that_say_nothing_do_not_keep_others_out_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 1.0)
    async with listening() as made:
        assert made.port is not None
        silent = [await asyncio.open_connection("127.0.0.1", made.port) for _ in range(MOST)]
        await eventually(lambda: made._open == MOST, "all are open")
        assert (await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 503
        for reader, writer in silent:
            assert await reader.read() == b""
            writer.close()
        await eventually(lambda: made._open == 0, "they are closed")
        assert (await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 200


async def test_a_client_that_does_not_read_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.5)
    made = Listener("127.0.0.1", 0, lambda: bytes(50_000_000))
    running = asyncio.create_task(made.run())
    await eventually(lambda: made.port is not None, "it listens")
    with socket.create_connection(("127.0.0.1", made.port or 0)) as client:
        client.send(b"GET /metrics HTTP/1.1\r\n\r\n")
        await eventually(lambda: made._open == 1, "it is answered")

        def tasks() -> int:
            return sum("_serve" in str(task.get_coro()) for task in asyncio.all_tasks())

        await eventually(lambda: made._open == 0 and tasks() == 0, "it is cut off, and nothing waits for it")
    await end([running])


async def test_clients_that_leave_early() -> None:
    async with listening() as made:
        assert made.port is not None
        for piece in (b"", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\n\r\n"):
            for _ in range(20):
                _, writer = await asyncio.open_connection("127.0.0.1", made.port)
                writer.write(piece)
                writer.transport.abort()
        await eventually(lambda: made._open == 0, "they are closed")
        assert (await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 200


async def test_a_busy_port_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(module, "RETRY", 0.05)
    monkeypatch.setattr(module.log, "warning", lambda text_, **_: logged.append(text_))
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        made = Listener("127.0.0.1", busy.getsockname()[1], body)
        running = asyncio.create_task(made.run())
        await asyncio.sleep(0.3)
        assert not running.done() and made.port is None
        assert logged == ["cannot show metrics; it will try again"], "it is said once"
    await eventually(lambda: made.port is not None, "it listens")
    assert (await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == 200
    await end([running])


async def test_it_listens_on_its_address_only() -> None:
    async with listening(host="127.0.0.2") as made:
        assert (await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n", "127.0.0.2"))[0] == 200
        with pytest.raises(ConnectionError):
            await sent(made.port, b"GET /metrics HTTP/1.1\r\n\r\n")
