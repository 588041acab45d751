"""A guest's time to shut down is counted by its own host, from when that first saw the request."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Desired, Wanted
from node_daemon.reconcile.grace_periods import GracePeriods
from tests.node_daemon.documents import wanted

VM = "7d3c5a52-0000-4000-8000-000000000001"
NOW = datetime.now(UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stop(at: datetime = NOW, **more: Any) -> Wanted:
    return wanted(VM, desired=Desired.OFF, force_after=at, **{"grace_seconds": 60.0, **more})


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=-3650), timedelta(seconds=300), timedelta(days=3650)])
def test_another_hosts_clock_means_nothing(tmp_path: Path, ahead: timedelta) -> None:
    clock = Clock()
    grace_periods = GracePeriods(tmp_path, "boot", clock)
    assert grace_periods.remaining(stop(NOW + ahead)) == 60.0
    clock.now += 59
    assert grace_periods.remaining(stop(NOW + ahead)) == 1.0
    clock.now += 2
    assert grace_periods.remaining(stop(NOW + ahead)) == 0.0


def test_a_new_document_of_the_same_request_changes_nothing_and_a_new_request_counts_anew(tmp_path: Path) -> None:
    clock = Clock()
    grace_periods = GracePeriods(tmp_path, "boot", clock)
    assert grace_periods.remaining(stop()) == 60.0
    clock.now += 20
    assert grace_periods.remaining(stop(name="renamed", generation=9)) == 40.0
    assert grace_periods.remaining(stop(NOW + timedelta(seconds=20), grace_seconds=5.0)) == 5.0


def test_a_daemon_that_starts_again_counts_on_but_not_over_a_boot_of_its_host(tmp_path: Path) -> None:
    clock = Clock()
    GracePeriods(tmp_path, "boot", clock).remaining(stop())
    clock.now += 45
    assert GracePeriods(tmp_path, "boot", clock).remaining(stop()) == 15.0
    clock.now = 3.0
    again = GracePeriods(tmp_path, "another boot", clock)
    assert again.remaining(stop()) == 60.0
    again.forget(VM)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_makes_no_sense_and_a_folder_that_cannot_be_written_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / f"{VM}.json").write_text("{")
    assert GracePeriods(tmp_path, "boot", Clock()).remaining(stop()) == 60.0
    (tmp_path / "file").write_text("")
    clock = Clock()
    grace_periods = GracePeriods(tmp_path / "file" / "folder", "boot", clock)
    assert grace_periods.remaining(stop()) == 60.0
    clock.now += 10
    assert grace_periods.remaining(stop()) == 50.0


def test_without_a_request_there_is_no_time(tmp_path: Path) -> None:
    assert GracePeriods(tmp_path, "boot", Clock()).remaining(wanted(VM, desired=Desired.OFF)) == 0.0
    assert list(tmp_path.iterdir()) == []
