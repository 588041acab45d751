"""Pauses grow and are bounded, however long something fails; also where they are counted from."""

from datetime import UTC, datetime
from itertools import islice

import pytest

from handlers.managers import failure
from node_daemon.reconcile import lane
from runtime.tasks.backoff import Backoff

#: A node that is out of order for a month.
MANY = 100_000


def test_a_pause_is_doubled_up_to_its_bound_and_differs() -> None:
    backoff = Backoff(first=0.5, last=30.0)
    for failures, most in ((1, 0.5), (2, 1.0), (6, 16.0), (7, 30.0), (1025, 30.0), (MANY, 30.0)):
        found = {backoff.after(failures) for _ in range(20)}
        assert len(found) > 1 and most / 2 <= min(found) and max(found) <= most


def test_pauses_in_a_row_are_those_of_the_first_failure_the_second_and_so_on() -> None:
    pauses = Backoff(first=0.2, last=5.0).pauses()
    for pause, most in zip(islice(pauses, 7), (0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0), strict=True):
        assert most / 2 <= pause <= most


@pytest.mark.parametrize(("jitter", "least"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0)])
def test_the_jitter_is_the_share_that_may_be_missing(jitter: float, least: float) -> None:
    found = {Backoff(first=1.0, last=1.0, jitter=jitter).after(1) for _ in range(200)}
    assert least <= min(found) and max(found) <= 1.0
    assert (len(found) == 1) == (jitter == 0.0)


def test_a_vm_or_an_item_that_fails_for_a_month_is_tried_again() -> None:
    assert lane.Trouble(failures=MANY).failed() <= lane.RETRY.last
    before = failure.Failure(MANY, datetime.now(UTC), "RuntimeError", passing=False, pause=60.0, shown=True)
    assert failure.failed(before, RuntimeError()).pause <= failure.RETRY.last
