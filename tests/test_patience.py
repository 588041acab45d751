"""Pauses grow and are bounded, however long something fails; also where they are counted from."""

from datetime import UTC, datetime
from itertools import islice

from handlers.managers import failure
from node_daemon.reconcile import lane
from runtime.patience import pause_after, pauses

#: A node that is out of order for a month.
MANY = 100_000


def test_a_pause_is_doubled_up_to_its_bound_and_differs() -> None:
    for failures, most in ((1, 0.5), (2, 1.0), (6, 16.0), (7, 30.0), (1025, 30.0), (MANY, 30.0)):
        found = {pause_after(failures, 0.5, 30.0) for _ in range(20)}
        assert len(found) > 1 and most / 2 <= min(found) and max(found) <= most


def test_pauses_in_a_row_are_those_of_the_first_failure_the_second_and_so_on() -> None:
    for pause, most in zip(islice(pauses(0.2, 5.0), 7), (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0), strict=True):
        assert most / 2 <= pause <= most


def test_a_vm_or_an_item_that_fails_for_a_month_is_tried_again() -> None:
    assert lane.Trouble(failures=MANY).failed() <= lane.LAST_RETRY
    before = failure.Failure(MANY, datetime.now(UTC), "RuntimeError", passing=False, pause=60.0, shown=True)
    assert failure.failed(before, RuntimeError()).pause <= failure.LAST
