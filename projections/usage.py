"""Usage: the resources of a project's VMs, now and at any earlier time.

`promised` is what a project has requested: each of its VMs that is not deleted, with its wanted size (`spec`). When a
VM has a node, the same size is reserved for it there. `in_use` is what hosts provide:

    phase                           in_use                                                     promised
    requested, unschedulable        nothing: there is no node, so there is no disk             the VM, its spec
    scheduled                       its disk, which its node makes                             the VM, its spec
    running, paused                 the VM; vCPUs, memory and disk of its domain               the VM, its spec
    suspended, stopped              its disk                                                   the VM, its spec
    lost                            its disk; nobody can see whether its domain runs           the VM, its spec
    failed                          its disk, if it has a node; else nothing                   the VM, its spec
    deleted                         nothing                                                    nothing

A domain has the size that it was started with. So after a resize of a VM that runs, or is paused, suspended or lost,
`in_use` may be more or less than `promised` until its next start. The disk of a stopped or failed VM counts with its
wanted size.

A row holds what one VM counts for, from one position of the log to another. The sums are computed at each query, for
the past in the same way as for the present.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import lru_cache
from operator import attrgetter

from typing_extensions import TypedDict

from domain.vm import Phase, Vm
from eventstore.log.envelope import Ref
from projections import bulk
from projections.database import Connection, Pool, fetch, select
from projections.model import Batch, ReadModel, Session, Step, changes

DDL = """
CREATE TABLE usage (
    project     text NOT NULL,
    vm          text NOT NULL,
    since       bigint NOT NULL,
    since_time  timestamptz NOT NULL,
    until       bigint,
    until_time  timestamptz,
    vcpus       bigint NOT NULL,
    memory_mib  bigint NOT NULL,
    disk_gib    bigint NOT NULL,
    vms_in_use        bigint NOT NULL,
    vcpus_in_use      bigint NOT NULL,
    memory_mib_in_use bigint NOT NULL,
    disk_gib_in_use   bigint NOT NULL,
    PRIMARY KEY (project, vm, since)
);
CREATE INDEX ON usage (project, vm) WHERE until IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Share:
    """What one VM counts for, in the order of the columns: first promised, then in use."""

    vcpus: int
    memory_mib: int
    disk_gib: int
    vms_in_use: int = 0
    vcpus_in_use: int = 0
    memory_mib_in_use: int = 0
    disk_gib_in_use: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """What a VM counts for, from one event (`since`) to the event that changes it (`until`).

    The times are those of the events; within one VM they never decrease.
    """

    share: Share
    since: int
    since_time: datetime
    until: int | None = None
    until_time: datetime | None = None


SHARE = tuple(field.name for field in fields(Share))

Spans = tuple[Span, ...]
"""Of one VM, in the order of the log. Only the last one may be open."""


def alike(one: Vm | None, other: Vm | None) -> bool:
    """Whether it is plain that two states of a VM count for the same. It is faster than to compute both shares."""
    return (
        one is not None
        and other is not None
        and one.phase is other.phase
        and one.spec is other.spec
        and one.running_size is other.running_size
        and one.node == other.node
    )


def share(vm: Vm | None) -> Share | None:
    """What a VM counts for; None if it does not count."""
    if vm is None or vm.phase is Phase.DELETED:
        return None
    spec = vm.spec
    promised = (spec.vcpus, spec.memory_mib, spec.disk_gib)
    if vm.node is None:
        return share_of(promised)
    size = vm.running_size or spec
    return share_of(promised, (size.vcpus, size.memory_mib, size.disk_gib), runs=vm.phase in RUNS)


#: Phases in which a VM has vCPUs and memory of its host.
RUNS = frozenset({Phase.RUNNING, Phase.PAUSED})
Size = tuple[int, int, int]
"""vCPUs, MiB of memory, GiB of disk."""


@lru_cache(maxsize=1024)
def share_of(promised: Size, size: Size | None = None, *, runs: bool = False) -> Share:
    """What a VM counts for. `size`: of its domain, if it has a node. Many VMs have the same sizes."""
    if size is None:
        return Share(*promised)
    return Share(*promised, 1, *size) if runs else Share(*promised, disk_gib_in_use=size[2])


#: The values of a share, in the order of the columns.
amounts = attrgetter(*SHARE)


def shared(row: Mapping[str, int]) -> Share:
    return Share(*(row[name] for name in SHARE))


async def load(conn: Connection, batch: Batch) -> dict[Ref, Spans]:
    """The open spans of the VMs of a batch."""
    requested = batch.states("vm")
    if not requested:
        return {}
    stored = await select(
        conn,
        bulk.lookup("usage", ("project", "vm"), f"project, vm, {', '.join(SHARE)}, since, since_time", "until IS NULL"),
        [[ref.project for ref in requested], [ref.id for ref in requested]],
    )
    return {
        Ref(row["project"], "vm", row["vm"]): (Span(shared(row), row["since"], row["since_time"]),) for row in stored
    }


def fold(spans_of: dict[Ref, Spans], step: Step[Vm]) -> None:
    """An event that changes what its VM counts for ends the open span, and begins the next one."""
    state = step.row.state if step.row else None
    if step.event is None or alike(step.before, state) or share(step.before) == (after := share(state)):
        return
    ref, position, moment = step.recorded.ref, step.recorded.position, step.recorded.moment
    spans = spans_of.get(ref, ())
    if spans and spans[-1].until is None:
        spans = (*spans[:-1], replace(spans[-1], until=position, until_time=moment))
    spans_of[ref] = spans if after is None else (*spans, Span(after, position, moment))


async def save(session: Session, before: Mapping[Ref, Spans], after: Mapping[Ref, Spans]) -> None:
    """Write the spans that have begun or ended."""
    new, old = list[bulk.Values](), list[bulk.Values]()
    for ref, spans in changes(before, after).items():
        known = {span.since for span in before.get(ref, ())}
        for span in spans:
            (old if span.since in known else new).append(_values(ref, span))
    await bulk.write(session.conn, TABLE, new, old, many=session.many)


TABLE = bulk.Table.of(DDL, "usage", ("project", "vm", "since"))


def _values(ref: Ref, span: Span) -> tuple[object, ...]:
    of = (span.since, span.since_time, span.until, span.until_time)
    return (ref.project, ref.id, *of, *amounts(span.share))


USAGE = ReadModel(name="usage", version=2, ddl=DDL, tables=("usage",), kinds=("vm",), load=load, fold=fold, save=save)


class AmountView(TypedDict):
    """A number of VMs, and the sums of their resources."""

    vms: int
    vcpus: int
    memory_mib: int
    disk_gib: int


class UsageView(TypedDict):
    """The resources of a project's VMs. `promised`: all VMs that are not deleted, with their wanted sizes.

    `in_use`: VMs that run or are paused, with vCPUs and memory of their domains; and the disks of all VMs with a node.
    `position` is the log position that this reflects; for the past, the position of the last event that changed it.
    """

    project: str
    in_use: AmountView
    promised: AmountView
    position: int


#: Sums over the spans that are `open` at the requested time.
_SUMS = ", ".join(
    (
        "count(*) FILTER (WHERE open) AS vms",
        *(f"coalesce(sum({each}) FILTER (WHERE open), 0)::bigint AS {each}" for each in SHARE),
    )
)


async def now(pool: Pool, project: str) -> UsageView:
    """The usage now. Raises ReadModelsUnavailable."""
    found = await fetch(
        pool,
        f"""SELECT {_SUMS}
            FROM (SELECT *, true AS open FROM usage WHERE project = %(project)s AND until IS NULL) spans""",  # noqa: S608
        {"project": project},
    )
    return view(project, found.rows[0], found.position)


async def as_of(pool: Pool, project: str, at: int | datetime, least: int) -> UsageView:
    """The usage after the last event up to a position or a time, which the read models must have reached.

    `least` is the lowest `position` that the answer may have: an earlier event, such as the last change of the project.
    Raises ReadModelsUnavailable.
    """
    end = "_time" if isinstance(at, datetime) else ""
    found = await fetch(
        pool,
        f"""SELECT {_SUMS}, greatest(%(least)s, max(since), max(until) FILTER (WHERE NOT open)) AS position
            FROM (SELECT *, (until IS NULL OR until{end} > %(at)s) AS open FROM usage
                  WHERE project = %(project)s AND since{end} <= %(at)s) spans""",  # noqa: S608
        {"project": project, "at": at, "least": least},
    )
    return view(project, found.rows[0], found.rows[0]["position"])


def view(project: str, row: Mapping[str, int], position: int) -> UsageView:
    all_ = shared(row)
    in_use: AmountView = {
        "vms": all_.vms_in_use,
        "vcpus": all_.vcpus_in_use,
        "memory_mib": all_.memory_mib_in_use,
        "disk_gib": all_.disk_gib_in_use,
    }
    promised: AmountView = {
        "vms": row["vms"],
        "vcpus": all_.vcpus,
        "memory_mib": all_.memory_mib,
        "disk_gib": all_.disk_gib,
    }
    return {"project": project, "in_use": in_use, "promised": promised, "position": position}
