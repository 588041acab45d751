"""What is said of a verb is what its command gets: in each situation of a VM's life, for each verb."""

from typing import Any

import pytest

from domain.base import Rejected
from domain.references import looked_up_in
from domain.verb import Effect
from domain.vm.offers import NO_OPERATION, can_be_forced, refusal
from domain.vm.rules import decide
from domain.vm.verbs import VERBS
from tests.domain.lives import LIVES, living
from tests.domain.story import at

CALLED = [verb for verb in VERBS if verb.effect not in (Effect.CREATES, Effect.NOTES)]


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("verb", CALLED, ids=lambda verb: verb.name)
@pytest.mark.parametrize("lost", [False, True])
def test_an_offer_is_what_the_command_gets(life: str, verb: Any, lost: bool) -> None:
    vm = living(life)
    for force in (False, True) if can_be_forced(verb) else (False,):
        said = refusal(vm, verb, at(100), {"node_lost": lost}, force=force)
        more = {"force": True} if force else {}
        known = {"node_lost": lost} if "node_lost" in looked_up_in(verb.command) else {}
        own = {"vm": vm.id, "at": at(100), "operation": NO_OPERATION, "fingerprint": "f"}
        command = verb.command(**own, **verb.example(vm), **known, **more)
        try:
            events = decide(vm, command)
        except Rejected as rejected:
            assert said is not None and (said.code, said.detail) == (rejected.code, rejected.detail)
        else:
            assert said is None and events


def test_each_verb_can_be_asked_for() -> None:
    """A new verb whose command needs more fields has to give an example of them."""
    for verb in CALLED:
        refusal(living("running"), verb, at(100), {"node_lost": False})
