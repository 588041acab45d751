"""What the platform itself says of a VM, and what all commands of people (`Asked`, in `verbs/`) have in common."""

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from domain.base import Command, Slug, Uuid
from domain.contract import BootId, Counter, Mac, NodeReport, detail
from domain.guest import MOST_HOST_KEYS, BoundedKey
from domain.vm.values import Considered, Console


class VmCommand(Command):
    vm: Uuid


class Asked(VmCommand):
    """A command that somebody asked for: an operation, recognised when it is asked again. Each is a verb's."""

    operation: Uuid
    fingerprint: str


class ScheduleVm(VmCommand):
    """`mac`: an address that no other VM has."""

    node: Slug
    mac: Mac | None = None
    considered: tuple[Considered, ...] = ()


class DeferVm(VmCommand):
    """No node has room; placement tries again whenever the cloud changes."""

    considered: tuple[Considered, ...] = ()


class DropVm(VmCommand):
    """What the VM was to be built on is gone (its project or image was deleted at the same moment)."""

    code: str
    detail: str


class RecordReport(VmCommand):
    """`folder`: the one that the daemon works on which reports (its identity), where that is known."""

    report: NodeReport
    folder: str | None = None


class RecordGuestReady(VmCommand):
    """`boots`: the boot whose seed it was told by; `boot`: the guest's own id of its boot, where it says one."""

    hostname: Annotated[str, Field(max_length=253)] | None = None
    host_keys: Annotated[tuple[BoundedKey, ...], Field(max_length=MOST_HOST_KEYS)] = ()
    boots: Counter | None = None
    boot: BootId | None = None


class ExpireOperation(VmCommand):
    operation: Uuid


class RestartByPolicy(VmCommand):
    """The time has come to start a VM again that went off by itself. `operation` is the one that it starts under."""

    operation: Uuid


class LoseVm(VmCommand):
    """The VM's node has not been heard of: what the VM does now is unknown."""

    node: Slug


SessionId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""One connection to a console, which the gateway names."""


class OpenConsole(VmCommand):
    """Somebody is about to be connected to its console. `force` takes it away from whoever has it."""

    session: SessionId
    console: Console
    force: bool = False


class CloseConsole(VmCommand):
    """The connection has ended, after so many seconds, and why."""

    session: SessionId
    console: Console
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    why: Annotated[str, BeforeValidator(detail)] | None = None


OfPlatform = (
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
"""What nobody asks for as an operation."""
VmCommands = Asked | OfPlatform
