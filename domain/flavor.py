"""Flavors: named sizes of VMs. A flavor belongs to the whole cloud, or to one project.

    CreateFlavor ─► usable ──DeprecateFlavor──► deprecated (for no new VMs) ──RestoreFlavor──► usable
                      └──────────DeleteFlavor, unused────────┴──► deleted (in two steps, as in `named.py`)

The size of a flavor never changes, because VMs made of it have that size. To change it, create another flavor and
deprecate the old one.
"""

from typing import Annotated, assert_never

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE as NO_OPERATIONS, Operations
from domain.access import FLAVOR_MANAGE, FLAVOR_READ
from domain.base import LENIENT, Category, Closing, Event, Labels, Rejected, Remark, Slug, Title, being_deleted, replace
from domain.kind import Id, Kind, Scope
from domain.named import (
    DeletionBegun,
    DeletionGivenUp,
    OperationCommand,
    OperationDone,
    closing_after,
    deletion_fields,
    is_repeat,
    operation_fields,
    operations_after,
)
from domain.references import LOOKED_UP, NONE, FinishDeletion, Names, Reference, Users
from domain.verb import ON_ACCEPTANCE, Effect, Verb
from domain.vm.values import DiskGib, MemoryMib, Spec, Vcpus


class FlavorCommand(OperationCommand):
    flavor: Slug


class CreateFlavor(FlavorCommand):
    """`project`: the only project that may use it; if None, all projects may."""

    VERB = "create"
    name: Title
    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib
    project: Annotated[Slug | None, Names("project")] = None
    labels: Labels = Field(default_factory=dict)
    description: Remark | None = None


class ChangeFlavor(FlavorCommand):
    """Fields that are None stay unchanged; labels are replaced as a whole."""

    VERB = "change"
    name: Title | None = None
    labels: Labels | None = None
    description: Remark | None = None


class DeprecateFlavor(FlavorCommand):
    VERB = "deprecate"


class RestoreFlavor(FlavorCommand):
    VERB = "restore"


class DeleteFlavor(FlavorCommand):
    VERB = "delete"
    users: Annotated[Users, LOOKED_UP] = Users()


FlavorCommands = CreateFlavor | ChangeFlavor | DeprecateFlavor | RestoreFlavor | DeleteFlavor | FinishDeletion


class FlavorCreated(OperationDone):
    TOPIC = "nebula.flavor.FlavorCreated"
    VERB = CreateFlavor.VERB
    flavor: str
    name: str
    size: Spec
    project: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    description: str | None = None


class FlavorChanged(OperationDone):
    """Fields that are None stay unchanged. An empty description removes the earlier one."""

    TOPIC = "nebula.flavor.FlavorChanged"
    VERB = ChangeFlavor.VERB
    name: str | None = None
    labels: dict[str, str] | None = None
    description: str | None = None


class FlavorDeprecated(OperationDone):
    """No new VM may be made of it."""

    TOPIC = "nebula.flavor.FlavorDeprecated"
    VERB = DeprecateFlavor.VERB


class FlavorRestored(OperationDone):
    """New VMs may be made of it again."""

    TOPIC = "nebula.flavor.FlavorRestored"
    VERB = RestoreFlavor.VERB


class FlavorDeleted(OperationDone):
    TOPIC = "nebula.flavor.FlavorDeleted"
    VERB = DeleteFlavor.VERB


class FlavorDeletionBegun(DeletionBegun):
    TOPIC = "nebula.flavor.FlavorDeletionBegun"


class FlavorDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.flavor.FlavorDeletionGivenUp"


FlavorEvents = (
    FlavorCreated
    | FlavorChanged
    | FlavorDeprecated
    | FlavorRestored
    | FlavorDeletionBegun
    | FlavorDeletionGivenUp
    | FlavorDeleted
)


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Flavor:
    """The state of a flavor."""

    id: str
    name: str
    size: Spec
    project: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    description: str | None = None
    deprecated: bool = False
    deleted: bool = False
    closing: Closing | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NO_OPERATIONS


# ── decide ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def usable(flavor: Flavor | None, id_: str, project: str) -> Flavor:
    """The flavor, if a VM of a project may be made of it.

    Raises Rejected, for a flavor of another project as if it did not exist.
    """
    if flavor is None or flavor.deleted or flavor.project not in (None, project):
        raise Rejected("flavor_not_found", f"there is no flavor {id_}", Category.INVALID, field="flavor")
    if flavor.closing is not None:
        raise being_deleted("flavor", id_, field="flavor")
    if flavor.deprecated:
        detail = f"flavor {id_} is deprecated: no new VM can be made of it; choose another flavor, or give the size"
        raise Rejected("flavor_deprecated", detail, field="flavor")
    return flavor


def decide(flavor: Flavor | None, command: FlavorCommands) -> list[FlavorEvents]:
    """The events that follow from a command on a flavor. Raises Rejected."""
    if isinstance(command, FinishDeletion):
        return finish(flavor, command)
    if is_repeat("flavor", flavor, command):
        return []
    if isinstance(command, CreateFlavor):
        return create(flavor, command)
    if flavor is None:
        raise Rejected("flavor_not_found", f"there is no flavor {command.flavor}", Category.NOT_FOUND, field="flavor")
    if flavor.deleted:
        raise Rejected("flavor_deleted", f"flavor {flavor.id} was deleted", Category.GONE)
    match command:
        case ChangeFlavor():
            return change(command)
        case DeprecateFlavor():
            return [FlavorDeprecated(**operation_fields(command))]
        case RestoreFlavor():
            return [FlavorRestored(**operation_fields(command))]
        case DeleteFlavor():
            used = in_use(flavor, command.users)
            if used is not None:
                raise used
            return [FlavorDeletionBegun(**deletion_fields(command))]
        case _:
            assert_never(command)


def create(flavor: Flavor | None, command: CreateFlavor) -> list[FlavorEvents]:
    if flavor is not None and not flavor.deleted:
        raise Rejected("flavor_exists", f"there is a flavor {flavor.id} already; choose another id", field="id")
    size = Spec(vcpus=command.vcpus, memory_mib=command.memory_mib, disk_gib=command.disk_gib)
    return [
        FlavorCreated(
            **operation_fields(command),
            flavor=command.flavor,
            name=command.name,
            size=size,
            project=command.project,
            labels=command.labels,
            description=command.description,
        )
    ]


def change(command: ChangeFlavor) -> list[FlavorEvents]:
    if command.name is None and command.labels is None and command.description is None:
        raise Rejected("invalid_request", "nothing to change: give a name, labels or a description", Category.INVALID)
    return [
        FlavorChanged(
            **operation_fields(command), name=command.name, labels=command.labels, description=command.description
        )
    ]


def in_use(flavor: Flavor, users: Users) -> Rejected | None:
    """The refusal to delete a flavor of which VMs were made; None if there are none."""
    if not (used := users.counted()):
        return None
    detail = f"{used} were made of flavor {flavor.id}; deprecate it instead: then no new VM can be made of it"
    return Rejected("flavor_in_use", detail)


def finish(flavor: Flavor | None, command: FinishDeletion) -> list[FlavorEvents]:
    if flavor is None or flavor.closing is None:
        return []
    used = in_use(flavor, command.users)
    if used is not None:
        return [FlavorDeletionGivenUp(at=command.at, code=used.code, detail=used.detail)]
    deletion = flavor.closing
    return [FlavorDeleted(at=command.at, operation=deletion.operation, fingerprint=deletion.fingerprint)]


# ── evolve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def evolve(flavor: Flavor | None, event: Event) -> Flavor | None:
    """The state after an event. A deleted flavor's id may be used again; the new flavor keeps the old operations."""
    if isinstance(event, FlavorCreated):
        return Flavor(
            id=event.flavor,
            name=event.name,
            size=event.size,
            project=event.project,
            labels=event.labels,
            description=event.description,
            created_at=event.at,
            updated_at=event.at,
            operations=operations_after(flavor, event),
        )
    if flavor is None or not isinstance(event, FlavorEvents):
        return flavor
    match event:
        case FlavorDeletionBegun() | FlavorDeletionGivenUp():
            return replace(flavor, closing=closing_after(event))
        case FlavorCreated() | FlavorChanged() | FlavorDeprecated() | FlavorRestored() | FlavorDeleted():
            done = replace(flavor, updated_at=event.at, operations=operations_after(flavor, event))
            return changed(done, event)
        case _:
            assert_never(event)


def changed(
    flavor: Flavor, event: FlavorCreated | FlavorChanged | FlavorDeprecated | FlavorRestored | FlavorDeleted
) -> Flavor:
    match event:
        case FlavorChanged():
            return replace(
                flavor,
                name=flavor.name if event.name is None else event.name,
                labels=flavor.labels if event.labels is None else event.labels,
                description=flavor.description if event.description is None else event.description,
            )
        case FlavorDeprecated():
            return replace(flavor, deprecated=True)
        case FlavorRestored():
            return replace(flavor, deprecated=False)
        case FlavorDeleted():
            return replace(flavor, deleted=True, closing=None)
        case FlavorCreated():
            return flavor
        case _:
            assert_never(event)


# ── the kind ────────────────────────────────────────────────────────────────────────────────────────────────────────


def refers(flavor: Flavor) -> frozenset[Reference]:
    if flavor.deleted or flavor.project is None:
        return NONE
    return frozenset([Reference("project", flavor.project)])


def verb(
    command: type[FlavorCommand], summary: str, accepted_by: type[OperationDone], effect: Effect
) -> Verb[FlavorCommand]:
    return Verb(
        name=command.VERB,
        command=command,
        summary=summary,
        effect=effect,
        permission=FLAVOR_MANAGE,
        accepted_by=(accepted_by,),
        fulfilled_by=ON_ACCEPTANCE,
        two_steps=effect is Effect.DELETES,
    )


FLAVOR = Kind[Flavor, FlavorCommands](
    name="flavor",
    plural="flavors",
    title="flavor",
    scope=Scope.CLOUD,
    id=Id.SLUG,
    readable_by=FLAVOR_READ,
    state=Flavor,
    verbs=(
        verb(CreateFlavor, "Create a flavor", FlavorCreated, Effect.CREATES),
        verb(ChangeFlavor, "Change a flavor: its name, labels, description", FlavorChanged, Effect.CHANGES),
        verb(DeprecateFlavor, "Deprecate a flavor: no new VM can be made of it", FlavorDeprecated, Effect.ACTS),
        verb(
            RestoreFlavor, "Restore a deprecated flavor: new VMs can be made of it again", FlavorRestored, Effect.ACTS
        ),
        verb(DeleteFlavor, "Delete a flavor", FlavorDeleted, Effect.DELETES),
    ),
    events=(FlavorDeletionBegun, FlavorDeletionGivenUp),
    decide=decide,
    evolve=evolve,
    deleted=lambda flavor: flavor.deleted,
    refers=refers,
    owner=lambda flavor: flavor.project,
    usable=usable,
)
