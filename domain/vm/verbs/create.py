"""Create a VM: it is requested, and desired on."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from domain.accepted_requests import NONE, AcceptedRequest, same_request
from domain.access import VM_CREATE
from domain.base import Hostname, Labels, Rejected, Remark, Sealed, Slug, Tags, replace
from domain.contract import Desired, Watchdog
from domain.references import LOOKED_UP, Names
from domain.verb import Effect
from domain.vm.commands import VmOperationCommand
from domain.vm.deadlines import PLACEMENT_DEADLINE
from domain.vm.events import VmEvent, VmOperationAccepted, VmStarted
from domain.vm.state import Vm, pending_of
from domain.vm.values import Notice, Phase, RestartPolicy, Spec
from domain.vm.verb import WAS_DELETED, Row, VmVerb, accepted

NAME = "create"
ROW: Row = {**dict.fromkeys(Phase, "it was created before"), Phase.DELETED: WAS_DELETED}


class CreateVm(VmOperationCommand):
    project: Annotated[Slug, Names("project")]
    name: Hostname
    image: Annotated[Slug, Names("image")]
    spec: Spec
    region: Slug | None = None
    tags: Annotated[Tags, Names("tag")] = ()
    labels: Labels = Field(default_factory=dict)
    protected: bool = False
    restart_policy: RestartPolicy = RestartPolicy.NO
    watchdog: Watchdog = Watchdog.DISABLED
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: Annotated[tuple[Notice, ...], LOOKED_UP] = ()
    description: Remark | None = None
    created_by: str | None = None
    flavor: Annotated[Slug | None, Names("flavor")] = None


class VmRequested(VmOperationAccepted):
    TOPIC = "nebula.vm.VmRequested"
    SIGNED = True
    vm: str
    project: str
    name: str
    image: str
    spec: Spec
    region: str | None = None
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    protected: bool = False
    restart_policy: RestartPolicy = RestartPolicy.NO
    watchdog: Watchdog = Watchdog.DISABLED
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = ()
    description: str | None = None
    created_by: SkipJsonSchema[str | None] = Field(default=None, exclude=True)
    flavor: str | None = Field(default=None, description="the flavor that it was made of, if any; `spec` is its size")


def create(vm: Vm | None, command: CreateVm) -> list[VmEvent]:
    if vm is not None:
        if same_request(vm.operations.get(command.operation), NAME, command.fingerprint):
            return []
        raise taken(vm)
    return [
        VmRequested(
            **accepted(command, PLACEMENT_DEADLINE),
            vm=command.vm,
            project=command.project,
            name=command.name,
            image=command.image,
            spec=command.spec,
            region=command.region,
            tags=command.tags,
            labels=command.labels,
            protected=command.protected,
            restart_policy=command.restart_policy,
            watchdog=command.watchdog,
            ssh_keys=command.ssh_keys,
            user_data=command.user_data,
            notices=command.notices,
            description=command.description,
            created_by=command.created_by,
            flavor=command.flavor,
        )
    ]


def taken(vm: Vm) -> Rejected:
    """The refusal of an id that a VM has or had."""
    if vm.phase is Phase.DELETED:
        detail = f"the id {vm.id} was that of a deleted VM, and cannot be used again; choose another id, or give none"
    else:
        detail = f"the id {vm.id} is that of VM {vm.name} in this project; choose another id, or give none"
    return Rejected("vm_exists", detail, field="id")


_NEW = Vm(
    id="",
    project="",
    name="",
    image="",
    spec=Spec(vcpus=1, memory_mib=128, disk_gib=1),
    phase=Phase.REQUESTED,
    desired=Desired.ON,
    boots=1,
    created_at=datetime.min.replace(tzinfo=UTC),
    updated_at=datetime.min.replace(tzinfo=UTC),
)
"""Template of a new VM: a copy of it is much faster than validating all fields."""


def created(event: VmRequested) -> Vm:
    return replace(
        _NEW,
        id=event.vm,
        project=event.project,
        name=event.name,
        image=event.image,
        spec=event.spec,
        region=event.region,
        tags=event.tags,
        labels=event.labels,
        protected=event.protected,
        restart_policy=event.restart_policy,
        watchdog=event.watchdog,
        ssh_keys=event.ssh_keys,
        user_data=event.user_data,
        notices=event.notices,
        description=event.description,
        created_by=event.created_by,
        flavor=event.flavor,
        created_at=event.at,
        updated_at=event.at,
        pending=pending_of(event, NAME),
        operations=NONE.insert(event.operation, AcceptedRequest(NAME, event.fingerprint)),
    )


CREATE = VmVerb(
    name=NAME,
    command=CreateVm,
    summary="Create a VM",
    effect=Effect.CREATES,
    permission=VM_CREATE,
    event=VmRequested,
    accepted_by=(VmRequested,),
    fulfilled_by=(VmStarted,),
    row=ROW,
    decide=lambda vm, command, _: create(vm, command),
    evolve=lambda _, event: created(event),
    starts=True,
    boots=True,
)

VERBS = (CREATE,)
