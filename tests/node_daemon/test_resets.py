"""How often guests have reset themselves, and what their watchdogs did, over restarts of the daemon."""

import itertools
from dataclasses import replace
from pathlib import Path

from domain.contract import Power, Watchdog
from node_daemon.hypervisor.hypervisor import Have
from node_daemon.reconcile.resets import TOGETHER, Resets
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from tests.node_daemon.harness import Node, off, on
from tests.waiting import eventually

HAVE = Have(vm="vm", power=Power.ON, boots=1, host_boot="a")


def test_resets_are_counted_over_restarts_of_the_daemon(tmp_path: Path) -> None:
    seconds = itertools.count(0, 5)
    resets = Resets(tmp_path / "resets", lambda: next(seconds))
    assert resets.of(HAVE).resets == 0
    assert resets.note("vm")
    assert resets.note("vm")
    assert resets.of(HAVE).resets == 2
    again = Resets(tmp_path / "resets")
    assert again.note("vm")
    assert again.of(HAVE).resets == 3
    assert Resets(tmp_path / "resets").of(HAVE).resets == 3


def test_one_reset_that_is_told_twice_is_one(tmp_path: Path) -> None:
    now = [0.0]
    resets = Resets(tmp_path, lambda: now[0])
    assert [resets.note("vm"), resets.of(HAVE).resets, resets.note("vm"), resets.of(HAVE).resets] == [True, 1, False, 1]
    now[0] = TOGETHER
    assert [resets.note("vm"), resets.of(HAVE).resets] == [True, 2]


def test_another_run_of_the_domain_begins_with_none(tmp_path: Path) -> None:
    resets = Resets(tmp_path)
    resets.note("vm")
    assert resets.of(HAVE).resets == 1
    assert resets.of(replace(HAVE, power=Power.PAUSED)).resets == 0
    assert resets.of(HAVE).resets == 1, "it is the same run after a pause"
    assert resets.of(replace(HAVE, boots=2)).resets == 0
    assert Resets(tmp_path).of(replace(HAVE, host_boot="b")).resets == 0


def test_nothing_is_left_and_nonsense_counts_nothing(tmp_path: Path) -> None:
    resets = Resets(tmp_path)
    resets.note("vm")
    resets.of(HAVE)
    resets.forget("vm")
    resets.forget("vm")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "vm.json").write_text("{")
    assert resets.of(HAVE).resets == 0


def test_a_reset_by_the_watchdog_is_told_of_before_the_reset_itself(tmp_path: Path) -> None:
    seconds = itertools.count(0, 5)
    resets = Resets(tmp_path, lambda: next(seconds))
    resets.note_watchdog("vm", Watchdog.RESET)
    assert resets.of(HAVE).resets == 0, "a look in between"
    resets.note("vm")
    resets.note("vm")
    found = Resets(tmp_path).of(HAVE), resets.of(HAVE)
    assert [(each.resets, each.watchdog, each.ended) for each in found] == [(0, 1, False), (2, 1, False)]


def test_a_power_off_by_the_watchdog_is_known_while_the_domain_is_off(tmp_path: Path) -> None:
    off = replace(HAVE, power=Power.OFF, cause="crashed")
    resets = Resets(tmp_path)
    resets.note_watchdog("vm", Watchdog.POWEROFF)
    assert [resets.of(off).ended, resets.of(off).ended, Resets(tmp_path).of(off).ended] == [True] * 3
    assert not resets.of(replace(HAVE, boots=2)).ended, "another run"


def test_what_a_run_was_told_of_late_is_not_the_next_ones(tmp_path: Path) -> None:
    resets = Resets(tmp_path)
    resets.note("vm")
    resets.of(replace(HAVE, power=Power.OFF))
    assert resets.of(replace(HAVE, boots=2)).resets == 0


async def test_what_a_watchdog_did_is_reported(node: Node) -> None:
    simulator = Simulator(SimulatedHost())
    async with node.daemon(simulator):
        vm = await node.create(watchdog=Watchdog.RESET)
        await node.until(vm, on)
        simulator.host.hang(vm)
        await node.until(vm, lambda report: (report.resets, report.watchdog_resets) == (1, 1))
        await node.change(vm, boots=2, watchdog=Watchdog.POWEROFF)
        assert (await node.until(vm, lambda report: report.boots == 2)).watchdog_resets == 0
        await eventually(lambda: simulator.host.look(vm).persistent, "the domain is persistent")
        simulator.host.hang(vm)
        assert (await node.until(vm, off)).cause == "watchdog"
    async with node.daemon(simulator):
        await node.until(vm, lambda report: report.lease > 1 and off(report))
        assert node.reports[vm][-1].cause == "watchdog", "another daemon knows it as well"
        await node.remove(vm)
