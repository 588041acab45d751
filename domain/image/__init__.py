"""A base image, from which the disks of VMs are made.

    RegisterImage ─► verifying ──bytes and digests are right──► available ──DeleteImage──► deleted
                         └──────unreachable, wrong digest, not a disk image──► rejected ──DeleteImage──►──┘

The registration is an operation that ends when the image is verified. A caller can wait for it, sees its progress, and
is told which field is wrong and why. Only an available image can be used; the image of a project, only by that project.

A deletion has two steps, like that of a project (`domain/named.py`): nothing new may use an image that is closing.

`commands.py` and `events.py` are the messages, `values.py` the types of their fields, `rules.py` decides, `state.py` is
the state and evolves; `kind.py` is the kind itself.
"""

from domain.image.commands import *  # noqa: F403
from domain.image.events import *  # noqa: F403
from domain.image.rules import *  # noqa: F403
from domain.image.state import *  # noqa: F403
from domain.image.values import *  # noqa: F403
