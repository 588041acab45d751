"""A host that runs VMs.

    RegisterNode ─► ready ──LoseNode (silent too long)──► lost ──RecoverNode (heard again)──► ready
                      ▲                                     │
                      └── a daemon that takes it over ── retired ◄──RetireNode (gone for good)

CordonNode: takes no new VMs until UncordonNode. Reserve and Release keep the books of what is promised to VMs.

`commands.py` and `events.py` are the messages, `rules.py` decides, `state.py` is the state and evolves; `kind.py` is
the kind itself.
"""

from domain.node.commands import *  # noqa: F403
from domain.node.events import *  # noqa: F403
from domain.node.rules import *  # noqa: F403
from domain.node.state import *  # noqa: F403
