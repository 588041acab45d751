"""How an identifier is written stands in one file."""

import ast
from functools import cache
from pathlib import Path

import pytest

from domain import patterns
from runtime import subjects
from runtime.text import explained

ROOT = Path(__file__).parent.parent
#: `runtime` may not import `domain`: it has its own copy, which is compared below.
OWNERS = {"domain/patterns.py", "runtime/subjects.py", "runtime/text/explained.py"}
ROOMS = ("domain", "eventstore", "handlers", "projections", "gateway", "node_daemon", "runtime", "cli")


def test_both_owners_say_the_same() -> None:
    ours = (subjects.SLUG, subjects.UUID, subjects.SHA256, subjects.TOKEN.pattern)
    assert ours == (patterns.SLUG, patterns.UUID, patterns.SHA256, patterns.TOKEN)


@pytest.mark.parametrize("pattern", [patterns.SLUG, patterns.UUID, patterns.SHA256])
def test_each_is_explained_to_people(pattern: str) -> None:
    assert any(f"^{pattern}$".startswith(beginning) for beginning in explained.PATTERNS)


@cache
def strings() -> list[tuple[str, str]]:
    """All texts in our code, with the file and line of each."""
    found: list[tuple[str, str]] = []
    for file in [each for room in ROOMS for each in (ROOT / room).rglob("*.py")]:
        name = str(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and name not in OWNERS:
                text = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
                found.append((f"{name}:{node.lineno}", text))
    return found


@pytest.mark.parametrize("pattern", [patterns.SLUG, patterns.UUID, "{8}(-[0-9a-f]{4}){3}", patterns.SHA256])
def test_no_other_file_spells_one(pattern: str) -> None:
    assert [place for place, text in strings() if pattern in text] == []
