"""The platform's own commands on a VM, and the base class of the commands of callers, which are in `verbs/`."""

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from domain.base import Command, Slug, Uuid
from domain.contract import BootId, Counter, Mac, NodeReport, detail
from domain.guest import MOST_HOST_KEYS, BoundedKey
from domain.vm.values import Considered, Console


class VmCommand(Command):
    vm: Uuid


class VmOperationCommand(VmCommand):
    """A command of a caller, which belongs to a verb. When it is accepted, it becomes an operation.

    `operation` and `fingerprint` identify the request: a repeat has the same.
    """

    operation: Uuid
    fingerprint: str


class ScheduleVm(VmCommand):
    """Place the VM on a node. `mac`: an address that no other VM has. `considered`: all nodes that were considered."""

    node: Slug
    mac: Mac | None = None
    considered: tuple[Considered, ...] = ()


class DeferVm(VmCommand):
    """No node has room. Placement tries again when the nodes or their reservations change."""

    considered: tuple[Considered, ...] = ()


class DropVm(VmCommand):
    """The VM cannot be made, because a resource that it needs was deleted at the same time, such as its image."""

    code: str
    detail: str


class RecordReport(VmCommand):
    """A report of the VM's node. `folder`: the identity of the daemon that sent it, if known."""

    report: NodeReport
    folder: str | None = None


class RecordGuestReady(VmCommand):
    """The guest is ready. `boots`: the boot whose seed it got. `boot`: the guest's own id of its boot, if any."""

    hostname: Annotated[str, Field(max_length=253)] | None = None
    host_keys: Annotated[tuple[BoundedKey, ...], Field(max_length=MOST_HOST_KEYS)] = ()
    boots: Counter | None = None
    boot: BootId | None = None


class ExpireOperation(VmCommand):
    """The deadline of the pending operation has passed."""

    operation: Uuid


class RestartByPolicy(VmCommand):
    """The time `restart_at` has come: start the VM again. `operation`: the id of the new operation."""

    operation: Uuid


class LoseVm(VmCommand):
    """The VM's node is lost: the present state of the VM is unknown."""

    node: Slug


SessionId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""The id of one connection to a console. The gateway chooses it."""


class OpenConsole(VmCommand):
    """A caller is about to be connected to its console. `force`: end the present connection."""

    session: SessionId
    console: Console
    force: bool = False


class CloseConsole(VmCommand):
    """A connection to its console has ended, after `seconds`, for the reason `why`."""

    session: SessionId
    console: Console
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    why: Annotated[str, BeforeValidator(detail)] | None = None


PlatformCommands = (
    ScheduleVm
    | DeferVm
    | DropVm
    | RecordReport
    | RecordGuestReady
    | ExpireOperation
    | RestartByPolicy
    | LoseVm
    | OpenConsole
    | CloseConsole
)
"""The commands that do not become operations of a caller."""
VmCommands = VmOperationCommand | PlatformCommands
