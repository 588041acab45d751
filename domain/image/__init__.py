"""A base image: what disks are made from.

    RegisterImage ─► verifying ──bytes and checksum are as promised──► available ──DeleteImage──► deleted
                         └──────unreachable, other checksum, no disk image──► rejected ──DeleteImage──►──┘

Verification is an operation of its own: whoever registers an image can wait for it, sees how far it is, and is told
what is wrong with which field. Only an available image can be used; one that belongs to a project, by that one alone.

A deletion has two steps, as that of a project (`domain/named.py`): while it is closing nothing new may use the image.

`commands.py` and `events.py` are the messages, `values.py` what they speak of, `rules.py` decides, `state.py` is the
state and evolves; `kind.py` is the kind itself.
"""

from domain.image.commands import *  # noqa: F403
from domain.image.events import *  # noqa: F403
from domain.image.rules import *  # noqa: F403
from domain.image.state import *  # noqa: F403
from domain.image.values import *  # noqa: F403
