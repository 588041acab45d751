"""Everywhere in the platform where the log is opened, the event keys are given."""

import ast
from pathlib import Path

import pytest

ROOMS = ("handlers", "gateway", "projections", "eventstore", "cli")
ROOT = Path(__file__).parents[2]

#: Stores that append nothing, and read no events or check MACs by themselves: by file.
WITHOUT = {
    "eventstore/integrity/audit.py": 1,  # the verifier checks each MAC
    "eventstore/integrity/transfer.py": 1,  # a restore compares bytes
    "handlers/main.py": 1,  # makes the keys
    "projections/guest_answers.py": 1,  # asks for the end of the log
    "projections/rebuild.py": 2,  # ask for the end of the log
    "projections/runner.py": 1,  # asks for the end of the log
}


@pytest.mark.parametrize("room", ROOMS)
def test_each_store_has_the_event_keys(room: str) -> None:
    for file in sorted((ROOT / room).rglob("*.py")):
        name = str(file.relative_to(ROOT))
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        stores = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "EventStore"]
        bare = [call for call in stores if len(call.args) < 2 and not any(k.arg == "event_keys" for k in call.keywords)]
        assert len(bare) == WITHOUT.get(name, 0), name
