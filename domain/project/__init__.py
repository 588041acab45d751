"""Projects own VMs. A project has members with roles, tags, and the SSH keys of people who may log in to all its VMs.

`domain/named.py` shows the life of a project. `commands.py` and `events.py` are the messages, `rules.py` decides,
`state.py` is the state and evolves; `kind.py` is the kind itself.
"""

from domain.project.commands import *  # noqa: F403
from domain.project.events import *  # noqa: F403
from domain.project.kind import *  # noqa: F403
from domain.project.rules import *  # noqa: F403
from domain.project.state import *  # noqa: F403
