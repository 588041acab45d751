"""What was ever written still loads, and still means the same.

Each `<story>.jsonl` holds the events of one aggregate as they were once written: type, version of the type where it
is not 1, and body, byte by byte.
`<story>.state.json` is what they fold into. Files here never change; `SHA256SUMS` pins them. For a new event type, or
a new shape of one, add a story at the end of `stories.py`, then

    python -m tests.history.stories        (writes the files that do not exist yet, and no other)
    cd tests/history && sha256sum <story>.* >> SHA256SUMS        (`git diff` must show new lines only)
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from domain.base import Event, Foreign
from eventstore.log.upcast import all_types, opened, type_version
from tests.history.stories import EVOLVE, STATES

HERE = Path(__file__).parent
STORIES = sorted(HERE.glob("*.jsonl"))


Headers = dict[str, str]


def lines(path: Path) -> list[tuple[Headers, bytes]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["headers"], line["body"].encode()) for line in found]


def decoded(headers: Headers, body: bytes) -> Event:
    event = opened(headers, body)
    assert not isinstance(event, Foreign), f"{headers} was written once and is unknown now"
    return event


def folded(path: Path) -> Any:
    evolve, state = EVOLVE[path.name.split("-")[0]], None
    for headers, body in lines(path):
        state = evolve(state, decoded(headers, body))
    return state


def common(have: Any, expected: Any) -> Any:
    """What there is, without the fields that nobody expected, at any depth."""
    if isinstance(have, dict) and isinstance(expected, dict):
        return {name: common(have[name], value) for name, value in expected.items() if name in have}
    if isinstance(have, list) and isinstance(expected, list) and len(have) == len(expected):
        return [common(one, other) for one, other in zip(have, expected, strict=True)]
    return have


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_every_history_loads_and_folds_into_what_it_was(path: Path) -> None:
    """A state may have gained fields since; none of those it had may differ."""
    expected = json.loads(path.with_suffix(".state.json").read_text())
    have = json.loads(STATES[path.name.split("-")[0]].dump_json(folded(path)))
    assert common(have, expected) == expected


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_kept_state_loads_too(path: Path) -> None:
    """What a state has gained since is not known of a kept one."""
    expected = json.loads(path.with_suffix(".state.json").read_text())
    stored = STATES[path.name.split("-")[0]]
    kept = stored.validate_python(expected)
    assert common(json.loads(stored.dump_json(kept)), expected) == expected


def test_every_version_of_every_type_has_a_golden() -> None:
    have = {(headers["ce-type"], type_version(headers)) for path in STORIES for headers, _ in lines(path)}
    ours = {(topic, version) for topic, kind in all_types().items() for version in range(1, kind.VERSION + 1)}
    assert have == ours


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_what_a_newer_version_added_is_ignored(path: Path) -> None:
    for headers, body in lines(path):
        newer = json.dumps({**json.loads(body), "added_later": {"a": 1}}).encode()
        assert decoded(headers, newer) == decoded(headers, body)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_type_of_a_newer_version_changes_nothing(path: Path) -> None:
    state = folded(path)
    foreign = Foreign(topic="nebula.vm.VmTeleported", body={"at": "2031-01-01T00:00:00Z"})
    assert EVOLVE[path.name.split("-")[0]](state, foreign) == state


def test_no_file_has_changed() -> None:
    pinned = {name: digest for digest, name in map(str.split, (HERE / "SHA256SUMS").read_text().splitlines())}
    have = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in HERE.iterdir() if ".json" in p.name}
    assert have == pinned
