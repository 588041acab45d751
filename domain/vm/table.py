"""What may be asked of a VM when: two tables.

`ALLOWED` says for each verb and each phase that it is taken (YES), or why not and what would help. `OVERTAKES` says
which pending operations a verb cancels; any other has to end first.
"""

from collections.abc import Mapping

from domain.base import Rejected
from domain.contract import Desired
from domain.vm.state import Vm
from domain.vm.values import WAITING, Phase, Verb

YES = None

Row = Mapping[Phase, str | None]

GONE = "this VM was deleted; read its past with ?at="
COMING: Row = dict.fromkeys(
    (Phase.REQUESTED, Phase.UNSCHEDULABLE, Phase.SCHEDULED), "wait until it has been created, or delete it"
)
SILENT: Row = {Phase.LOST: "its node is silent; it goes on when the node is back"}
ALWAYS: Row = {**dict.fromkeys(Phase, YES), Phase.DELETED: GONE}

#: The refusal for each verb and phase, or YES.
ALLOWED: Mapping[Verb, Row] = {
    Verb.CREATE: {**dict.fromkeys(Phase, "it was created before"), Phase.DELETED: GONE},
    Verb.START: {
        **COMING,
        Phase.RUNNING: "it runs already; use restart to boot it anew",
        Phase.PAUSED: "use resume; or stop it by force, then start it to boot it anew",
        Phase.SUSPENDED: "use resume; or stop it by force, which discards its memory, then start it to boot it anew",
        Phase.STOPPED: YES,
        Phase.FAILED: YES,
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.STOP: {
        **COMING,
        Phase.RUNNING: YES,
        Phase.PAUSED: "a paused guest cannot shut itself down; resume it first, or stop it by force",
        Phase.SUSPENDED: "resume it first; or stop it by force, which discards its memory",
        Phase.STOPPED: "it is off already",
        Phase.FAILED: "only a running VM can be stopped; start it to try again, or delete it",
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.RESTART: {
        **COMING,
        Phase.RUNNING: YES,
        Phase.PAUSED: "resume it first; or stop it by force, then start it",
        Phase.SUSPENDED: "resume it first; or stop it by force, which discards its memory, then start it",
        Phase.STOPPED: "only a running VM can be restarted; use start",
        Phase.FAILED: "only a running VM can be restarted; use start",
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.PAUSE: {
        **COMING,
        Phase.RUNNING: YES,
        Phase.PAUSED: "it is paused already",
        Phase.SUSPENDED: "its memory is on disk; resume it first",
        Phase.STOPPED: "only a running VM can be paused; start it first",
        Phase.FAILED: "only a running VM can be paused; start it first",
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.RESUME: {
        **COMING,
        Phase.RUNNING: "it runs already",
        Phase.PAUSED: YES,
        Phase.SUSPENDED: YES,
        Phase.STOPPED: "it is off, and nothing of it is in memory; use start",
        Phase.FAILED: "nothing of it is in memory; use start",
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.SUSPEND: {
        **COMING,
        Phase.RUNNING: YES,
        Phase.PAUSED: YES,
        Phase.SUSPENDED: "its memory is on disk already",
        Phase.STOPPED: "only a VM that runs or is paused can be suspended; start it first",
        Phase.FAILED: "only a VM that runs or is paused can be suspended; start it first",
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.DELETE: ALWAYS,
    Verb.RETRY: {
        **COMING,
        Phase.RUNNING: "it runs; nothing of it has failed for good",
        Phase.PAUSED: "its guest is still there; use resume",
        Phase.SUSPENDED: "use resume; or stop it by force, which discards its memory",
        Phase.STOPPED: "it is off, and has not failed; use start",
        Phase.FAILED: YES,
        **SILENT,
        Phase.DELETED: GONE,
    },
    Verb.RESIZE: {**ALWAYS, **COMING, **SILENT},
    Verb.REBUILD: {**ALWAYS, **COMING, **SILENT},
    Verb.ABANDON: {**dict.fromkeys(Phase, "no operation on it is pending"), Phase.DELETED: GONE},
    Verb.FORGET: {**ALWAYS, **dict.fromkeys(WAITING, "it is on no node; delete it")},
    Verb.TAG: ALWAYS,
    Verb.CHANGE: ALWAYS,
}
#: The same where the plug is to be pulled.
FORCED: Mapping[Verb, Row] = {
    Verb.STOP: {**ALLOWED[Verb.STOP], Phase.PAUSED: YES, Phase.SUSPENDED: YES},
}

#: Done as soon as they are asked, whatever else is pending or wanted.
BESIDE = frozenset({Verb.TAG, Verb.CHANGE})

#: The pending operations that a verb overtakes: they end `cancelled`. Stop does so by force only.
OVERTAKES: Mapping[Verb, frozenset[Verb]] = {
    Verb.STOP: frozenset({Verb.START, Verb.STOP, Verb.RESTART, Verb.PAUSE, Verb.RESUME, Verb.SUSPEND, Verb.REBUILD}),
    Verb.DELETE: frozenset(Verb) - {Verb.DELETE},
    Verb.ABANDON: frozenset(Verb) - {Verb.DELETE},
    Verb.FORGET: frozenset(Verb),
}


def admit(vm: Vm, verb: Verb, *, force: bool = False) -> str | None:
    """The operation that the verb overtakes, if any. Raises Rejected when the verb cannot be taken now."""
    if verb in BESIDE:
        return None
    if vm.pending is not None:
        if not overtakes(vm, verb, vm.pending.verb, force=force):
            raise Rejected(
                "operation_pending",
                f"{vm.pending.verb} (operation {vm.pending.operation}) is under way; {way_past(vm, vm.pending.verb)}",
            )
        return vm.pending.operation
    if vm.desired is Desired.ABSENT and verb not in (Verb.DELETE, Verb.RETRY, Verb.FORGET):
        raise wrong_phase(vm, verb, "it is being deleted")  # that never turns back, even where it failed
    why_not = (FORCED if force and verb in FORCED else ALLOWED)[verb][vm.phase]
    if why_not is not None:
        raise wrong_phase(vm, verb, why_not)
    return None


def overtakes(vm: Vm, verb: Verb, pending: Verb, *, force: bool) -> bool:
    if pending not in OVERTAKES.get(verb, ()):
        return False
    return verb is not Verb.STOP or (force and vm.node is not None)


def way_past(vm: Vm, pending: Verb) -> str:
    """What can be done while an operation is pending."""
    if pending is Verb.DELETE:
        return "wait for it; where its node is lost for good, forget the VM"
    force = "a forced stop or " if overtakes(vm, Verb.STOP, pending, force=True) else ""
    return f"wait for it, overtake it with {force}a delete, or abandon it"


def wrong_phase(vm: Vm, verb: Verb, help_: str) -> Rejected:
    return Rejected("wrong_phase", f"cannot {verb} a VM that is {vm.phase}: {help_}")
