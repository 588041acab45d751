"""A host that runs VMs.

    RegisterNode ─► ready ──LoseNode (no heartbeats)──► lost ──RecoverNode (heartbeats again)──► ready
                      ▲                                   │
                      └── a daemon takes it over ── retired ◄──RetireNode (permanently lost)

CordonNode: no new VM is placed on it until UncordonNode. Reserve and Release record what is promised to VMs.

`commands.py` and `events.py` are the messages, `rules.py` decides, `state.py` is the state and evolves; `kind.py` is
the kind itself.
"""

from domain.node.commands import *  # noqa: F403
from domain.node.events import *  # noqa: F403
from domain.node.rules import *  # noqa: F403
from domain.node.state import *  # noqa: F403
