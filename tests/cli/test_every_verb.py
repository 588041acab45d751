"""Whatever can be asked for over HTTP can be asked for on the command line. The command line reads no rules, so that it
starts quickly; this is what holds it to them.
"""

import pytest
from typer.main import get_command

from cli.main import app
from domain.kinds import KINDS
from domain.verb import Effect

#: The commands that ask for what is changed by one call, where they have other names.
CHANGES = {
    ("vm", "change"): {"rename", "tag", "label", "describe", "protect", "unprotect", "restart-policy", "watchdog"},
    ("enrollment", "issue"): {"token"},
    ("project", "change"): {"rename", "describe", "tag", "ssh-keys"},
    ("user", "change"): {"rename"},
    ("service_account", "change"): {"rename"},
}
#: The group of commands, where it does not have the name of the kind.
GROUPS = {"enrollment": "node"}
VERBS = [(kind.name, verb.name) for kind in KINDS.values() for verb in kind.verbs if verb.effect is not Effect.NOTES]


def commands(kind: str) -> set[str]:
    """The commands of `nebula KIND`."""
    group = get_command(app).commands[GROUPS.get(kind, kind).replace("_", "-")]  # type: ignore[attr-defined]
    return set(group.commands)


@pytest.mark.parametrize(("kind", "verb"), VERBS)
def test_it_has_a_command(kind: str, verb: str) -> None:
    assert CHANGES.get((kind, verb), {verb}) <= commands(kind)
