"""What documents this daemon knows: their kinds, and of each kind the features that they may need.

A document of another kind, or one that needs more, is refused as a whole, in a report: by `read` where it cannot even
be read here, else by the plan of its kind. What there is of the thing then stays as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from domain.contract import VM_FEATURES, Document, ReportError, Wanted

#: By kind. All that was there before features had names needs none.
FEATURES: Mapping[str, frozenset[str]] = {"vm": VM_FEATURES}

UPGRADE = "its daemon is older; upgrade it"


@dataclass(frozen=True)
class Refused:
    """A document of which nothing is done."""

    kind: str
    id: str
    epoch: int
    generation: int
    error: ReportError


def names() -> tuple[str, ...]:
    """What handlers are told of it: all features, and the kinds, of which every daemon knows VMs."""
    return tuple(sorted({*FEATURES, *(name for known in FEATURES.values() for name in known)} - {"vm"}))


def refusal(kind: str, needed: Iterable[str]) -> ReportError | None:
    """Why nothing can be done about a document of this kind that needs this; None where it can."""
    if kind not in FEATURES:
        return ReportError(code="unsupported", detail=f"this node knows no documents of the kind {kind}: {UPGRADE}")
    if missing := sorted(set(needed) - FEATURES[kind]):
        detail = f"this node does not know {', '.join(missing)}: {UPGRADE}, or change the {kind.upper()}"
        return ReportError(code="unsupported", detail=detail)
    return None


def read(node: str, kind: str, id_: str, body: bytes) -> Wanted | Refused:
    """The document that stands for a node, a kind and an id.

    Raises ValueError for one that makes no sense, or is about something else.
    """
    try:
        if kind != "vm":
            raise ValueError(f"this node knows no documents of the kind {kind}")
        want = Wanted.model_validate_json(body)
    except ValueError as error:
        return refused(node, kind, id_, body, error)
    if (want.vm, want.node) != (id_, node):
        raise ValueError(f"it is about VM {want.vm} on node {want.node}")
    return want


def refused(node: str, kind: str, id_: str, body: bytes, why: ValueError) -> Refused:
    """What is said of a document that cannot be read here. Raises `why` where it should be."""
    try:
        document = Document.model_validate_json(body)
    except ValidationError:
        raise why from None
    if (document.kind, document.node) != (kind, node):
        raise ValueError(f"it is about a {document.kind} on node {document.node}") from None
    error = refusal(kind, document.features)
    if error is None:
        raise why
    return Refused(kind, id_, document.epoch, document.generation, error)
