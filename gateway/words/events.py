"""An event in words, and what caused it."""

import json
import re
from functools import lru_cache

from domain.base import event_type
from eventstore.log.envelope import Recorded
from eventstore.log.judge import family
from gateway.words import sentences

#: A place in a name such as `VmStartRequested` where a word begins.
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
#: Words that stay as they are in a sentence.
_NAMES = {"Vm": "VM"}

#: What the parts of the platform do, for `system:<name>`.
MANAGERS = {
    "placement": "placement found a node for it",
    "deadlines": "its deadline has passed",
    "liveness": "its node was silent, or is back",
    "deletions": "a deletion was carried out",
    "verifier": "its image was checked",
}


@lru_cache(maxsize=1024)
def in_words(type_: str) -> str:
    """The type of an event in words: `VM start requested` for `nebula.vm.VmStartRequested`."""
    if family(type_) is None:
        return type_
    words = _WORD.split(type_.rpartition(".")[2])
    return " ".join(_NAMES.get(word, word if number == 0 else word.lower()) for number, word in enumerate(words))


def sentence(recorded: Recorded) -> str:
    """What happened. For a malformed message: that it is none of the platform.

    An event of a type that this version does not know is said by the words of its name.
    """
    type_ = recorded.headers.get("ce-type", "")
    if not type_ or recorded.fault() is not None:
        return "a message that handlers did not write"
    known = event_type(type_) is not None
    said = sentences.sentence(type_.rpartition(".")[2], _data(recorded.body)) if known else None
    return said if said is not None else in_words(type_)


def _data(body: bytes) -> object:
    """The data of an event; None if it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def cause(recorded: Recorded) -> str | None:
    """What caused it: a caller, a node, a guest or a part of the platform; None if the event does not say it."""
    if recorded.fault() is not None:
        return None
    context = recorded.context
    sort, _, name = context.actor.partition(":")
    match sort:
        case "node":
            return f"node {name} reported it"
        case "guest":
            return "the guest said so"
        case "system":
            return MANAGERS.get(name, f"by the platform ({name})")
        case "":
            return None
    if context.request is not None:
        return f"{context.actor} asked for it (request {context.request})"
    return f"{context.actor} asked for it"
