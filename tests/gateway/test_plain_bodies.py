"""Most bodies are judged quickly: never otherwise than the others are."""

import json
import uuid

import pytest
from hypothesis import given, strategies as st

from gateway.http import content
from runtime.random_id import random_uuid

PIECES = st.sampled_from(
    ['{"a": 1', '{"a"', ":", ' "a" : 1', ',"a":2', ',"b":"}"', '"c":":"', "\\u0061", "}", "NaN", "[]", " "]
)
TEXTS = st.lists(PIECES, max_size=6).map(lambda pieces: "".join(pieces).encode())


@given(TEXTS | st.binary(max_size=20))
def test_what_is_judged_quickly_passes_the_long_way(raw: bytes) -> None:
    if content.plain(raw):
        found = json.JSONDecoder(object_pairs_hook=content.once).decode(raw.decode())
        assert isinstance(found, dict)


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        (b'{"name": "web-1", "vcpus": 1}', True),
        (b"{}", True),
        (b'{"a": 1, "a": 2}', False),
        (b'{"a" : 1, "a" : 2}', False),
        (b'{"a": 1, "\\u0061": 2}', False),
        (b'{"a": {"b": 1}}', False),
        (b'{"a": [1]}', False),
        (b'{"a": ":"}', False),
        (b"\xef\xbb\xbf{}", False),
        (b'{"a": "\xff"}', False),
        (b'{"a": ' + b"9" * 3000 + b"}", False),
        (b"1", False),
        (b"", False),
    ],
)
def test_only_what_can_be_read_in_one_way_is_plain(raw: bytes, plain: bool) -> None:
    assert content.plain(raw) == plain


def test_random_ids_are_uuids() -> None:
    found = [random_uuid() for _ in range(100)]
    assert len(set(found)) == 100
    for text in found:
        made = uuid.UUID(text)
        assert (str(made), made.version, made.variant) == (text, 4, uuid.RFC_4122)
