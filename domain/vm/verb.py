"""What a verb of a VM is, and when it is taken. Each stands in a file of its own in `verbs/`.

A row says for each phase that the verb is taken (YES), or why not and what would help.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar

from domain.base import Rejected
from domain.contract import Desired
from domain.verb import Effect, Verb
from domain.vm.commands import Asked
from domain.vm.events import VmAsked, VmEvent
from domain.vm.state import Vm
from domain.vm.values import Phase

YES = None

Row = Mapping[Phase, str | None]

GONE = "this VM was deleted"
COMING: Row = dict.fromkeys(
    (Phase.REQUESTED, Phase.UNSCHEDULABLE, Phase.SCHEDULED), "wait until it has been created, or delete it"
)
SILENT: Row = {Phase.LOST: "its node is silent; it goes on when the node is back"}
ALWAYS: Row = {**dict.fromkeys(Phase, YES), Phase.DELETED: GONE}

C = TypeVar("C", bound=Asked)
E = TypeVar("E", bound=VmAsked)


def no(*_: object) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class VmVerb(Verb[C], Generic[C, E]):
    """`decide` says what follows once the verb is taken; its third argument is the operation that is overtaken.

    What is taken when:

    - `row`: in which phases; `forced` stands for it where `by_force` says so of a command.
    - `overtakes`: it cancels any pending operation but those of the verbs named here; None: it waits for all of them.
      `only_by_force`: it overtakes only where it is forced, a VM that has a node.
    - `beside`: it is taken whatever is pending or wanted; `while_deleting`: also of a VM that is being deleted.
    - `first`: what is answered before any of this is asked, where that is not None.

    What is so while its operation is pending:

    - `comes_up`: the VM is not up, and has failed where the operation ends without that.
    - `boots`: its domain is about to be started, and being off is no news; `anew`: so that "it is on" is news of a VM
      that runs already.
    - `harmless`: the guest stays there whatever becomes of it; in a word, what it is to be, such as "paused".
    """

    event: type[E]
    decide: Callable[[Vm, C, str | None], Sequence[VmEvent]]
    evolve: Callable[[Vm, E], Vm]
    row: Row
    forced: Row | None = None
    by_force: Callable[[Vm, C], bool] = no
    overtakes: tuple[str, ...] | None = None
    only_by_force: bool = False
    beside: bool = False
    while_deleting: bool = False
    first: Callable[[Vm, C], Sequence[VmEvent] | None] | None = None
    comes_up: bool = False
    boots: bool = False
    anew: bool = False
    harmless: str | None = None

    def __post_init__(self) -> None:
        """Raises TypeError for a row that leaves out a phase: such a verb does not start."""
        for row in (self.row, *((self.forced,) if self.forced is not None else ())):
            if missing := set(Phase) - set(row):
                raise TypeError(f"the verb {self.name} says nothing of the phases {', '.join(sorted(missing))}")
        if self.name in _BY_NAME:
            raise TypeError(f"two verbs of a VM have the name {self.name}")
        _BY_NAME[self.name] = self

    def can_overtake(self, pending: str, *, force: bool) -> bool:
        """Whether it cancels a pending operation of this verb."""
        if self.overtakes is None or pending in self.overtakes:
            return False
        return force or not self.only_by_force


AnyVerb = VmVerb[Any, Any]
_BY_NAME: dict[str, AnyVerb] = {}


def verb_named(name: str) -> AnyVerb | None:
    """The verb of this name; None for one that this version does not know."""
    return _BY_NAME.get(name)


def admit(vm: Vm, verb: AnyVerb, *, force: bool = False) -> str | None:
    """The operation that the verb overtakes, if any. Raises Rejected when the verb cannot be taken now."""
    if verb.beside:
        return None
    if vm.pending is not None:
        pending = vm.pending
        if not verb.can_overtake(pending.verb, force=force and vm.node is not None):
            raise Rejected(
                "operation_pending",
                f"{pending.verb} (operation {pending.operation}) is under way; {way_past(vm, pending.verb)}",
            )
        return pending.operation
    if vm.desired is Desired.ABSENT and not verb.while_deleting:
        raise wrong_phase(vm, verb.name, "it is being deleted")  # that never turns back, even where it failed
    why_not = (verb.forced if force and verb.forced is not None else verb.row)[vm.phase]
    if why_not is not None:
        raise wrong_phase(vm, verb.name, why_not)
    return None


def way_past(vm: Vm, pending: str) -> str:
    """What can be done while an operation is pending."""
    known = verb_named(pending)
    if known is not None and known.effect is Effect.DELETES:
        return "wait for it; where its node is lost for good, forget the VM"
    by_force = any(one.only_by_force and one.can_overtake(pending, force=True) for one in _BY_NAME.values())
    force = "a forced stop or " if by_force and vm.node is not None else ""
    return f"wait for it, overtake it with {force}a delete, or abandon it"


def wrong_phase(vm: Vm, verb: str, help_: str) -> Rejected:
    return Rejected("wrong_phase", f"cannot {verb} a VM that is {vm.phase}: {help_}")


class Accepted(TypedDict):
    """What every event says that accepts an operation."""

    at: datetime
    operation: str
    fingerprint: str
    deadline: datetime
    cancels: str | None


def accepted(command: Asked, patience: timedelta, cancels: str | None = None) -> Accepted:
    """The same for a command. `patience` is how long the operation may take."""
    return {
        "at": command.at,
        "operation": command.operation,
        "fingerprint": command.fingerprint,
        "deadline": command.at + patience,
        "cancels": cancels,
    }


def refuse_protected(vm: Vm, verb: str) -> None:
    if vm.protected:
        detail = f"cannot {verb} a VM that is protected from deletion; take that away first (protected: false)"
        raise Rejected("delete_protected", detail, field="protected")
