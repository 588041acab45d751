"""The documents that this daemon supports: their kinds, and the features of each kind.

A document of another kind, or one that needs another feature, is refused as a whole, and reported: by `read` if it
cannot be parsed here, else by the plan. The resource on this node then stays unchanged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from domain.contract import VM_FEATURES, Document, ReportError, Wanted

#: The features of each kind. What existed before features had names needs none.
FEATURES: Mapping[str, frozenset[str]] = {"vm": VM_FEATURES}

UPGRADE = "its daemon is older; upgrade it"


@dataclass(frozen=True)
class Refused:
    """A refused document."""

    kind: str
    id: str
    epoch: int
    generation: int
    error: ReportError


def names() -> tuple[str, ...]:
    """The names in the node's registration: all features, and all kinds except VMs, which each daemon supports."""
    return tuple(sorted({*FEATURES, *(name for known in FEATURES.values() for name in known)} - {"vm"}))


def refusal(kind: str, needed: Iterable[str]) -> ReportError | None:
    """Why a document of this kind that needs these features is refused; None if it is supported."""
    if kind not in FEATURES:
        return ReportError(code="unsupported", detail=f"this node knows no documents of the kind {kind}: {UPGRADE}")
    if missing := sorted(set(needed) - FEATURES[kind]):
        detail = f"this node does not know {', '.join(missing)}: {UPGRADE}, or change the {kind.upper()}"
        return ReportError(code="unsupported", detail=detail)
    return None


def read(node: str, kind: str, id_: str, body: bytes) -> Wanted | Refused:
    """Parse a document for a node, a kind and an id.

    Raises ValueError if it is malformed, or is about another resource.
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
    """The refusal of a document that cannot be parsed here. Raises `why` if this daemon should be able to."""
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
