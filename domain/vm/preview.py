"""What a create would do now: the answer to a question that changes nothing."""

from domain.base import Message
from domain.vm.values import Considered, Notice, Spec


class VmPreview(Message):
    """The node that a VM would get (None: it would wait for room), and all nodes that were considered.

    `size`: its size, also if that is from a flavor. `warnings`: about its user-data. `position`: that of the log.
    """

    node: str | None
    considered: tuple[Considered, ...] = ()
    warnings: tuple[Notice, ...] = ()
    size: Spec
    position: int
