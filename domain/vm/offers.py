"""Whether a command of a verb would be accepted now, by the same rules that decide it.

Some refusals follow from what a VM's state does not say, such as the room on its node: those are not known here.
"""

from collections.abc import Mapping
from datetime import datetime

from domain.base import Rejected
from domain.references import looked_up_in
from domain.vm.rules import decide_verb
from domain.vm.state import Vm
from domain.vm.verb import AnyVerb

#: The operation of commands that are only judged: no operation has this id.
NO_OPERATION = "00000000-0000-0000-0000-000000000000"
FORCE = "force"


def can_be_forced(verb: AnyVerb) -> bool:
    """Whether a command of the verb may say `force`."""
    return FORCE in verb.command.model_fields


def refusal(
    vm: Vm, verb: AnyVerb, at: datetime, looked_up: Mapping[str, object], *, force: bool = False
) -> Rejected | None:
    """Why a command of the verb would be refused; None if it would be accepted.

    `looked_up`: values of the fields that handlers fill in. A field without a default has to be among them.
    """
    fields = {name: looked_up[name] for name in looked_up_in(verb.command) if name in looked_up}
    command = verb.command(
        vm=vm.id,
        at=at,
        operation=NO_OPERATION,
        fingerprint="",
        **verb.example(vm),
        **fields,
        **({FORCE: True} if force else {}),
    )
    try:
        decide_verb(vm, command, verb)
    except Rejected as rejected:
        return rejected
    return None
