"""What may be asked of a VM, by people (`Asked`) and by the platform itself."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from domain.base import Command, Hostname, Labels, Reason, Remark, Sealed, Slug, Tags, Uuid
from domain.contract import BootId, Counter, Mac, NodeReport, Watchdog, detail
from domain.vm.values import Considered, Console, DiskGib, HostKey, MemoryMib, Notice, RestartPolicy, Spec, Vcpus, Verb

#: Characters of a host key's base64, which is more than RSA of 16384 bits has; and how many keys a guest may name.
MOST_KEY, MOST_HOST_KEYS = 4096, 8


def _bounded(key: HostKey) -> HostKey:
    if max(len(key.type), len(key.fingerprint)) > 128 or len(key.key) > MOST_KEY:
        raise ValueError(f"a host key has at most {MOST_KEY} characters")
    return key


BoundedKey = Annotated[HostKey, AfterValidator(_bounded)]


class VmCommand(Command):
    vm: Uuid


class Asked(VmCommand):
    """A command that somebody asked for: an operation, recognised when it is asked again."""

    VERB: ClassVar[Verb]
    operation: Uuid
    fingerprint: str


class CreateVm(Asked):
    VERB = Verb.CREATE
    project: Slug
    name: Hostname
    image: Slug
    spec: Spec
    region: Slug | None = None
    tags: Tags = ()
    labels: Labels = Field(default_factory=dict)
    protected: bool = False
    restart_policy: RestartPolicy = RestartPolicy.NO
    watchdog: Watchdog = Watchdog.DISABLED
    ssh_keys: tuple[str, ...] = ()
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = ()
    description: Remark | None = None
    created_by: str | None = None


class StartVm(Asked):
    VERB = Verb.START


class StopVm(Asked):
    VERB = Verb.STOP
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class RestartVm(Asked):
    VERB = Verb.RESTART
    force: bool = False
    grace_seconds: float = Field(default=90, ge=0, le=3600)


class PauseVm(Asked):
    """Its CPUs stand still; memory, disk and address stay."""

    VERB = Verb.PAUSE


class ResumeVm(Asked):
    """It goes on where it was paused or suspended, in the same boot."""

    VERB = Verb.RESUME


class SuspendVm(Asked):
    """Its memory goes to the node's disk, and it takes up no more of the node's memory until it is resumed."""

    VERB = Verb.SUSPEND


class DeleteVm(Asked):
    VERB = Verb.DELETE


class RetryVm(Asked):
    """Ask again for what failed."""

    VERB = Verb.RETRY


class AbandonVm(Asked):
    """Give up the pending operation; the VM stays what it is."""

    VERB = Verb.ABANDON


class ForgetVm(Asked):
    """Take a VM for gone whose node is lost. `node_lost` and `folder` are looked up, not asked for."""

    VERB = Verb.FORGET
    reason: Reason
    node_lost: bool
    folder: str | None = None


class TagVm(Asked):
    VERB = Verb.TAG
    tags: Tags


class ChangeVm(Asked):
    """What is None stays as it is; tags and labels are replaced as a whole."""

    VERB = Verb.CHANGE
    name: Hostname | None = None
    tags: Tags | None = None
    labels: Labels | None = None
    protected: bool | None = None
    restart_policy: RestartPolicy | None = None
    watchdog: Watchdog | None = None
    description: Remark | None = None


class ResizeVm(Asked):
    """What is None stays as it is. A disk only grows. A domain gets its new size when it is next started."""

    VERB = Verb.RESIZE
    vcpus: Vcpus | None = None
    memory_mib: MemoryMib | None = None
    disk_gib: DiskGib | None = None


class RebuildVm(Asked):
    """A new disk in place of the old one, whose data is lost. What is None stays as it is."""

    VERB = Verb.REBUILD
    image: Slug
    ssh_keys: tuple[str, ...] | None = None
    user_data: Sealed | None = None
    notices: tuple[Notice, ...] = ()


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


VmCommands = (
    CreateVm
    | StartVm
    | StopVm
    | RestartVm
    | PauseVm
    | ResumeVm
    | SuspendVm
    | DeleteVm
    | RetryVm
    | AbandonVm
    | ForgetVm
    | TagVm
    | ChangeVm
    | ResizeVm
    | RebuildVm
    | ScheduleVm
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
