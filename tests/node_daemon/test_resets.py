"""How often guests have reset themselves: counted for each run of a domain, over restarts of the daemon."""

import itertools
from dataclasses import replace
from pathlib import Path

from domain.contract import Power
from node_daemon.hypervisor import Have
from node_daemon.resets import TOGETHER, Resets

HAVE = Have(vm="vm", power=Power.ON, boots=1, host_boot="a")


def test_resets_are_counted_over_restarts_of_the_daemon(tmp_path: Path) -> None:
    seconds = itertools.count(0, 5)
    resets = Resets(tmp_path / "resets", lambda: next(seconds))
    assert resets.of(HAVE) == 0
    assert resets.note("vm")
    assert resets.note("vm")
    assert resets.of(HAVE) == 2
    again = Resets(tmp_path / "resets")
    assert again.note("vm")
    assert again.of(HAVE) == 3
    assert Resets(tmp_path / "resets").of(HAVE) == 3


def test_one_reset_that_is_told_twice_is_one(tmp_path: Path) -> None:
    now = [0.0]
    resets = Resets(tmp_path, lambda: now[0])
    assert [resets.note("vm"), resets.of(HAVE), resets.note("vm"), resets.of(HAVE)] == [True, 1, False, 1]
    now[0] = TOGETHER
    assert [resets.note("vm"), resets.of(HAVE)] == [True, 2]


def test_another_run_of_the_domain_begins_with_none(tmp_path: Path) -> None:
    resets = Resets(tmp_path)
    resets.note("vm")
    assert resets.of(HAVE) == 1
    assert resets.of(replace(HAVE, power=Power.PAUSED)) == 0
    assert resets.of(HAVE) == 1, "it is the same run after a pause"
    assert resets.of(replace(HAVE, boots=2)) == 0
    assert Resets(tmp_path).of(replace(HAVE, host_boot="b")) == 0


def test_nothing_is_left_and_nonsense_counts_nothing(tmp_path: Path) -> None:
    resets = Resets(tmp_path)
    resets.note("vm")
    resets.of(HAVE)
    resets.forget("vm")
    resets.forget("vm")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "vm.json").write_text("{")
    assert resets.of(HAVE) == 0
