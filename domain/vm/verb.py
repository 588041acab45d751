"""What a verb of a VM is, and when it is accepted. Each verb is in a file of its own in `verbs/`.

A row says for each phase that the verb is accepted (ACCEPTED), or why it is refused and what to do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar

from domain.base import Rejected
from domain.contract import Desired
from domain.verb import Effect, Verb
from domain.vm.commands import VmOperationCommand
from domain.vm.events import VmEvent, VmOperationAccepted
from domain.vm.state import Vm
from domain.vm.values import Phase

ACCEPTED = None

Row = Mapping[Phase, str | None]

WAS_DELETED = "this VM was deleted"
NOT_CREATED: Row = dict.fromkeys(
    (Phase.REQUESTED, Phase.UNSCHEDULABLE, Phase.SCHEDULED), "wait until it has been created, or delete it"
)
NODE_LOST: Row = {Phase.LOST: "its node is lost; wait until the node is back, or forget the VM if it never will be"}
ALWAYS: Row = {**dict.fromkeys(Phase, ACCEPTED), Phase.DELETED: WAS_DELETED}

C = TypeVar("C", bound=VmOperationCommand)
E = TypeVar("E", bound=VmOperationAccepted)


def never_forced(*_: object) -> bool:
    return False


def nothing_more(_: Vm) -> Mapping[str, object]:
    """The default of `example`: a command of the verb needs no further fields."""
    return {}


@dataclass(frozen=True, kw_only=True)
class VmVerb(Verb[C], Generic[C, E]):
    """A verb of a VM. `decide`: the events of an accepted command; its third argument is the operation it overtakes.

    When it is accepted:

    - `row`: in which phases. `forced`: the row of commands for which `by_force` returns True.
    - `overtakes`: it cancels a pending operation, except those of the verbs named here; None: it is refused while any
      operation is pending. `only_by_force`: it overtakes only if it is forced, and only if the VM has a node.
    - `always_accepted`: in each phase, whatever is pending or desired. `while_deleting`: also during its deletion.
    - `special_case`: returns the events of a special case, before all these checks; None if it is not that case.
    - `example`: the fields that a command has to have, with values that nothing speaks against (`offers.py`).

    While its operation is pending:

    - `starts`: the VM is starting. If the operation ends without success, the VM is failed.
    - `boots`: the domain is about to be started, so a report that it is off leads to no event. `reboots`: a report that
      it is on fulfils the operation although the VM was running before.
    - `harmless_goal`: the guest is kept even if the operation fails. The value is the goal in a word, such as "paused".
    """

    event: type[E]
    decide: Callable[[Vm, C, str | None], Sequence[VmEvent]]
    evolve: Callable[[Vm, E], Vm]
    row: Row
    forced: Row | None = None
    by_force: Callable[[Vm, C], bool] = never_forced
    overtakes: tuple[str, ...] | None = None
    only_by_force: bool = False
    always_accepted: bool = False
    while_deleting: bool = False
    special_case: Callable[[Vm, C], Sequence[VmEvent] | None] | None = None
    example: Callable[[Vm], Mapping[str, object]] = nothing_more
    starts: bool = False
    boots: bool = False
    reboots: bool = False
    harmless_goal: str | None = None

    def __post_init__(self) -> None:
        """Raises TypeError if a row lacks a phase: no process starts with such a verb."""
        for row in (self.row, *((self.forced,) if self.forced is not None else ())):
            if missing := set(Phase) - set(row):
                raise TypeError(f"a row of the verb {self.name} lacks the phases {', '.join(sorted(missing))}")
        if self.name in _BY_NAME:
            raise TypeError(f"two verbs of a VM have the name {self.name}")
        _BY_NAME[self.name] = self

    def can_overtake(self, pending: str, *, force: bool) -> bool:
        """Whether it cancels a pending operation of the verb `pending`."""
        if self.overtakes is None or pending in self.overtakes:
            return False
        return force or not self.only_by_force


AnyVerb = VmVerb[Any, Any]
_BY_NAME: dict[str, AnyVerb] = {}


def verb_named(name: str) -> AnyVerb | None:
    """The verb with this name; None if this version has none."""
    return _BY_NAME.get(name)


def admit(vm: Vm, verb: AnyVerb, *, force: bool = False) -> str | None:
    """The operation that the verb overtakes, if any. Raises Rejected if the verb is not accepted now."""
    if verb.always_accepted:
        return None
    if vm.pending is not None:
        pending = vm.pending
        if not verb.can_overtake(pending.verb, force=force and vm.node is not None):
            raise Rejected(
                "operation_pending",
                f"{pending.verb} (operation {pending.operation}) is under way; {ways_out(vm, pending.verb)}",
            )
        return pending.operation
    if vm.desired is Desired.ABSENT and not verb.while_deleting:
        raise wrong_phase(vm, verb.name, "it is being deleted")  # a deletion is never given up, even if it failed
    refusal = (verb.forced if force and verb.forced is not None else verb.row)[vm.phase]
    if refusal is not None:
        raise wrong_phase(vm, verb.name, refusal)
    return None


def ways_out(vm: Vm, pending: str) -> str:
    """What a caller can do while an operation of the verb `pending` is pending, in words."""
    known = verb_named(pending)
    if known is not None and known.effect is Effect.DELETES:
        return "wait for it; if its node is permanently lost, forget the VM"
    by_force = any(one.only_by_force and one.can_overtake(pending, force=True) for one in _BY_NAME.values())
    force = "a forced stop or " if by_force and vm.node is not None else ""
    return f"wait for it, overtake it with {force}a delete, or abandon it"


def wrong_phase(vm: Vm, verb: str, help_: str) -> Rejected:
    return Rejected("wrong_phase", f"cannot {verb} a VM that is {vm.phase}: {help_}")


class AcceptedFields(TypedDict):
    """The fields of every event that accepts an operation."""

    at: datetime
    operation: str
    fingerprint: str
    deadline: datetime
    cancels: str | None


def accepted(command: VmOperationCommand, patience: timedelta, cancels: str | None = None) -> AcceptedFields:
    """These fields for a command. `patience`: how long the operation may take."""
    return {
        "at": command.at,
        "operation": command.operation,
        "fingerprint": command.fingerprint,
        "deadline": command.at + patience,
        "cancels": cancels,
    }


def refuse_protected(vm: Vm, verb: str) -> None:
    if vm.protected:
        detail = f"cannot {verb} a VM that is protected from deletion; end the protection first (protected: false)"
        raise Rejected("delete_protected", detail, field="protected")
