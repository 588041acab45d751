"""The rules of operations, as a table."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain import image, node, project, tag, vm
from domain.base import Event, Resources
from domain.operation import EventContext, Operation, Status, cancel, evolve as follow, overtaken, transition

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(minutes=10)
ASKED: dict[str, Any] = {"at": AT, "operation": "o", "fingerprint": "f", "deadline": LATER}
DONE: dict[str, Any] = {"at": AT, "operation": "o", "fingerprint": "f"}
SEEN: dict[str, Any] = {"at": AT, "operation": "o", "node": "n", "sequence": 1}

REQUESTED = vm.VmRequested(
    **ASKED, vm="v", project="p", name="web", image="i", spec=vm.Spec(vcpus=1, memory_mib=64, disk_gib=1)
)
START = vm.VmStartRequested(**ASKED)
STOP = vm.VmStopRequested(**ASKED, force_after=AT)
RESTART = vm.VmRestartRequested(**ASKED, force_after=AT)
PAUSE = vm.VmPauseRequested(**ASKED)
RESUME = vm.VmResumeRequested(**ASKED)
SUSPEND = vm.VmSuspendRequested(**ASKED)
REBUILD = vm.VmRebuildRequested(**ASKED, image="i", disk=2)
RETRY = vm.VmRetryRequested(**ASKED, again="start")
FORGOTTEN = vm.VmForgotten(**ASKED, reason="burnt down", node="n", epoch=2)
ABANDONED = vm.VmAbandoned(**ASKED, verb="start", force_after=AT, cancels="other")
DELETE = vm.VmDeletionRequested(**ASKED)
SCHEDULED = vm.VmScheduled(at=AT, operation="o", node="n", epoch=1, deadline=LATER, considered=())
UNSCHEDULABLE = vm.VmUnschedulable(at=AT, operation="o", considered=())
PREPARING = vm.VmPreparing(**SEEN, step="disk")
STARTED = vm.VmStarted(**SEEN, boots=1)
STOPPED = vm.VmStopped(**SEEN, cause="requested")
DELETED = vm.VmDeleted(at=AT, operation="o")
FAILED = vm.VmFailed(at=AT, operation="o", code="no_disk", detail="no space left")
REGISTERED = image.ImageRegistered(**ASKED, image="i", name="I", source="/i", sha256="0")
VERIFIED = image.ImageVerified(at=AT, operation="o", format="raw", size_bytes=1, virtual_size_bytes=1)
REFUSED = image.ImageRejected(at=AT, operation="o", code="wrong_checksum", detail="it differs", field="sha256")


def late(verb: str) -> Event:
    return vm.VmOperationTimedOut(at=AT, operation="o", verb=verb)


def after(*events: Event) -> Operation | None:
    operation = None
    for position, event in enumerate(events, start=1):
        happening = EventContext("o", "p", "vm", "v", position, AT, "alice", "r")
        operation = transition(operation, "o", event, happening)
    return operation


TABLE: list[tuple[list[Event], Status]] = [
    ([REQUESTED], Status.ACCEPTED),
    ([REQUESTED, UNSCHEDULABLE], Status.ACCEPTED),
    ([REQUESTED, UNSCHEDULABLE, SCHEDULED], Status.RUNNING),
    ([REQUESTED, SCHEDULED, PREPARING], Status.RUNNING),
    ([REQUESTED, SCHEDULED, STARTED], Status.SUCCEEDED),
    ([REQUESTED, SCHEDULED, FAILED], Status.FAILED),
    ([REQUESTED, late("create")], Status.TIMED_OUT),
    ([START], Status.ACCEPTED),
    ([START, STARTED], Status.SUCCEEDED),
    ([RESTART, STARTED], Status.SUCCEEDED),
    ([RESTART, STOPPED], Status.RUNNING),
    ([RESTART, STOPPED, STARTED], Status.SUCCEEDED),
    ([STOP, STOPPED], Status.SUCCEEDED),
    ([STOP, STARTED], Status.RUNNING),
    ([STOP, late("stop")], Status.TIMED_OUT),
    ([PAUSE, vm.VmPaused(**SEEN)], Status.SUCCEEDED),
    ([PAUSE, vm.VmSuspended(**SEEN)], Status.RUNNING),
    ([RESUME, vm.VmResumed(**SEEN)], Status.SUCCEEDED),
    ([RESUME, FAILED], Status.FAILED),
    ([SUSPEND, vm.VmSuspended(**SEEN)], Status.SUCCEEDED),
    ([SUSPEND, late("suspend")], Status.TIMED_OUT),
    ([RETRY, STARTED], Status.SUCCEEDED),
    ([RETRY, DELETED], Status.SUCCEEDED),
    ([RETRY, FAILED], Status.FAILED),
    ([FORGOTTEN, DELETED], Status.SUCCEEDED),
    ([ABANDONED], Status.SUCCEEDED),
    ([vm.VmRestartedByPolicy(**ASKED, attempt=1), STARTED], Status.SUCCEEDED),
    ([REBUILD, STARTED], Status.SUCCEEDED),
    ([REBUILD, late("rebuild")], Status.TIMED_OUT),
    ([vm.VmResized(**ASKED, spec=vm.Spec(vcpus=1, memory_mib=64, disk_gib=1))], Status.SUCCEEDED),
    ([DELETE], Status.ACCEPTED),
    ([DELETE, STOPPED], Status.RUNNING),
    ([DELETE, DELETED], Status.SUCCEEDED),
    ([REQUESTED, FAILED, DELETED], Status.FAILED),
    ([STOP, late("stop"), STOPPED], Status.TIMED_OUT),
    ([REGISTERED], Status.ACCEPTED),
    ([REGISTERED, VERIFIED], Status.SUCCEEDED),
    ([REGISTERED, REFUSED], Status.FAILED),
    ([vm.VmTagged(**ASKED, tags=())], Status.SUCCEEDED),
    ([vm.VmChanged(**ASKED, name="db")], Status.SUCCEEDED),
    ([image.ImageDeleted(**DONE)], Status.SUCCEEDED),
    ([node.NodeCordoned(**DONE)], Status.SUCCEEDED),
    ([node.NodeUncordoned(**DONE)], Status.SUCCEEDED),
    ([project.ProjectCreated(**DONE, project="p", name="P")], Status.SUCCEEDED),
    ([project.ProjectRenamed(**DONE, name="P"), project.ProjectTagged(**DONE, tags=())], Status.SUCCEEDED),
    ([project.ProjectDeleted(**DONE)], Status.SUCCEEDED),
    ([tag.TagCreated(**DONE, tag="t", name="T")], Status.SUCCEEDED),
    ([tag.TagRenamed(**DONE, name="T")], Status.SUCCEEDED),
    ([tag.TagDeleted(**DONE)], Status.SUCCEEDED),
]


@pytest.mark.parametrize(
    ("events", "status"), TABLE, ids=lambda v: "-".join(type(e).__name__ for e in v) if isinstance(v, list) else v
)
def test_transition(events: list[Event], status: Status) -> None:
    operation = after(*events)
    assert operation is not None
    assert operation.status is status
    assert operation.position == len(events)
    over = status not in (Status.ACCEPTED, Status.RUNNING)
    assert (operation.ended_at is not None) is over
    assert (operation.problem is not None) is (over and status is not Status.SUCCEEDED)


def test_events_of_nobodys_operation_open_none() -> None:
    assert after(STARTED) is None
    assert after(SCHEDULED, STARTED) is None


def test_a_failure_says_why() -> None:
    failed = after(REGISTERED, REFUSED)
    assert failed is not None
    assert failed.problem == {
        "type": "urn:nebula:problem:wrong_checksum",
        "title": "Wrong checksum",
        "code": "wrong_checksum",
        "detail": "it differs",
        "errors": [{"field": "sha256", "detail": "it differs"}],
    }


def test_what_overtakes_cancels() -> None:
    by = EventContext("d", "p", "vm", "v", 9, LATER, "alice", None)
    running = after(STOP)
    assert running is not None
    assert overtaken(vm.VmDeletionRequested(**{**ASKED, "cancels": "o"}), None) == "o"
    delete = vm.VmDeletionRequested(**{**ASKED, "cancels": "o"})
    gone = cancel(running, delete, by)
    assert (gone.status, gone.ended_at) == (Status.CANCELLED, LATER)
    assert gone.problem is not None
    assert gone.problem["code"] == "operation_cancelled"
    abandoned = vm.VmAbandoned(**{**ASKED, "cancels": "o"}, verb="start", force_after=AT)
    given_up = cancel(running, abandoned, by)
    assert (given_up.status, given_up.problem and given_up.problem["code"]) == (Status.CANCELLED, "abandoned")
    ended = after(STOP, STOPPED)
    assert ended is not None
    assert cancel(ended, delete, by) is ended
    assert cancel(running, DELETE, by) is running, "it names another one, or none"


def test_deleting_an_unverified_image_cancels_its_registration() -> None:
    deleted = image.ImageDeleted(**{**DONE, "operation": "d"})
    assert overtaken(deleted, image.evolve(None, REGISTERED)) == "o"
    by = EventContext("d", "p", "vm", "v", 9, LATER, "alice", None)
    over = follow(after(REGISTERED), "o", deleted, by)
    assert over is not None
    assert over.status is Status.CANCELLED
    verified = after(REGISTERED, VERIFIED)
    assert follow(verified, "o", deleted, by) == verified
    again = after(vm.VmChanged(**ASKED, name="db"))
    assert follow(again, "o", deleted, by) == again


def test_what_overtakes_an_operation_of_another_resource_cancels_nothing() -> None:
    running = after(STOP)
    delete = vm.VmDeletionRequested(**{**ASKED, "operation": "d", "cancels": "o"})
    here, elsewhere = (EventContext("d", "p", "vm", id_, 9, LATER, "alice", None) for id_ in ("v", "w"))
    assert follow(running, "o", delete, elsewhere) == running
    over = follow(running, "o", delete, here)
    assert over is not None
    assert over.status is Status.CANCELLED


def test_what_a_command_changes_beside_its_resource_is_no_step_of_it() -> None:
    resized = after(vm.VmResized(**ASKED, spec=vm.Spec(vcpus=1, memory_mib=64, disk_gib=1)))
    reserved = node.CapacityReserved(at=AT, vm="v", resources=Resources())
    beside = EventContext("o", "system", "node", "n", 2, AT, "alice", "r")
    assert transition(resized, "o", reserved, beside) == resized
    assert transition(None, "o", reserved, beside) is None
