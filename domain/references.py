"""What aggregates refer to. A project, a tag or an image is deleted only when nothing refers to it."""

from typing import NamedTuple

from domain.image import OVER, Image
from domain.named import Named
from domain.vm import Phase, Vm


class Reference(NamedTuple):
    """An aggregate that another one refers to."""

    kind: str
    id: str


NONE: frozenset[Reference] = frozenset()


def references(state: object) -> frozenset[Reference]:
    """What a state refers to. What is deleted refers to nothing."""
    match state:
        case Vm() if state.phase is not Phase.DELETED:
            return frozenset([Reference("project", state.project), Reference("image", state.image), *tags(state.tags)])
        case Named() if not state.deleted:
            return tags(state.tags)
        case Image() if state.phase not in OVER and state.project is not None:
            return frozenset([Reference("project", state.project)])
        case _:
            return NONE


def tags(names: tuple[str, ...]) -> frozenset[Reference]:
    return frozenset(Reference("tag", name) for name in names)


def may_differ(before: object, after: object) -> bool:
    """Whether two states in a row may refer to different things: cheap, and True when in doubt."""
    if isinstance(before, Vm) and isinstance(after, Vm):
        same = before.image is after.image and before.tags is after.tags
        return not same or after.phase is Phase.DELETED
    return True
