"""The steps of a create: each function that stands for one exists, and the innermost one counts."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.routing import Router

from bench import costs
from bench.sampling import OTHER, STEPS, step_of

ROOMS = ("gateway", "handlers", "eventstore", "runtime", "projections")
THEIRS = (
    Client._read_loop,
    Client._flusher,
    Subscription._wait_for_msgs,
    TypeAdapter.validate_json,
    Response.__init__,
    Response.__call__,
    Router.__call__,
)


def qualified(tree: ast.AST, before: str = "") -> Iterator[str]:
    """The names of all functions in a module, as `__qualname__` has them."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef():
                yield from qualified(node, f"{before}{node.name}.")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield f"{before}{node.name}"
                yield from qualified(node, f"{before}{node.name}.<locals>.")
            case _:
                yield from qualified(node, before)


def test_the_functions_of_all_steps_exist() -> None:
    root = Path(costs.__file__).parents[1]
    ours = {
        name
        for room in ROOMS
        for file in (root / room).rglob("*.py")
        for name in qualified(ast.parse(file.read_text()))
    }
    theirs = {one.__qualname__ for one in THEIRS}
    for role, steps in STEPS.items():
        assert not [name for name in steps if name not in ours | theirs], role


def frame_in(depth: int) -> FrameType:
    return frame_in(depth - 1) if depth else sys._getframe()


@pytest.mark.parametrize(("steps", "step"), [({"frame_in": "a"}, "a"), ({}, OTHER)])
def test_the_innermost_function_counts(steps: dict[str, str], step: str) -> None:
    frame = frame_in(3)
    assert step_of(steps, frame) == step
    assert step_of({"test_the_innermost_function_counts": "outer", **steps}, frame) == (step if steps else "outer")
    assert step_of(steps, None) == OTHER


async def test_the_steps_add_up() -> None:
    found = await costs.measure(count=100, in_flight=4)
    processes = [us for name, us in found.items() if name.startswith("create_us_")]
    assert found["create_us"] == pytest.approx(sum(processes), abs=len(processes))
    for role, steps in STEPS.items():
        assert sum(found[f"{role}_steps_us"].values()) == pytest.approx(found[f"create_us_{role}"], abs=2)
        assert set(found[f"{role}_steps_us"]) <= {*steps.values(), OTHER}
    assert found["publish_us"] > 0
