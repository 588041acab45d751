"""A wrong length is told in the unit of the value, wherever the limit stands in its type."""

from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, AnyUrl, Field, StringConstraints, TypeAdapter, UrlConstraints, ValidationError

from domain.base import Labels, Remark, Tags, Title
from runtime.text.explained import errors_in, explained

Bytes = Annotated[bytes, AfterValidator(bytes)]
Members = Annotated[dict[str, int], AfterValidator(dict)]


def told(kind: Any, given: str) -> str:
    """The message about a value in JSON."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_json(given)
    return explained(errors_in(caught.value)[0])


@pytest.mark.parametrize(
    ("kind", "given", "unit"),
    [
        (Annotated[str, StringConstraints(max_length=3)], '"four"', "characters"),
        (Annotated[Remark, StringConstraints(max_length=3)], '"four"', "characters"),
        (Annotated[Remark, Field(max_length=3)], '"four"', "characters"),
        (Annotated[Title, Field(max_length=3)] | None, '"four"', "characters"),
        (Annotated[AnyUrl, UrlConstraints(max_length=3)], '"http://four"', "characters"),
        (Annotated[list[int], Field(max_length=3)], "[1, 2, 3, 4]", "items"),
        (Annotated[Tags, Field(max_length=3)], '["a", "b", "c", "d"]', "items"),
        (Annotated[frozenset[int], Field(max_length=3)], "[1, 2, 3, 4]", "items"),
        (Annotated[dict[str, int], Field(max_length=3)], '{"a": 1, "b": 2, "c": 3, "d": 4}', "members"),
        (Annotated[Members, Field(max_length=3)], '{"a": 1, "b": 2, "c": 3, "d": 4}', "members"),
        (Annotated[Labels, Field(max_length=3)], '{"a": "", "b": "", "c": "", "d": ""}', "members"),
        (Annotated[bytes, Field(max_length=3)], '"four"', "bytes"),
    ],
)
def test_too_long(kind: Any, given: str, unit: str) -> None:
    assert told(kind, given) == f"may have at most 3 {unit}"


@pytest.mark.parametrize(
    ("kind", "given", "unit"),
    [
        (Annotated[str, Field(min_length=2)], '"a"', "characters"),
        (Annotated[Remark, Field(min_length=2)], '"a"', "characters"),
        (Annotated[tuple[int, ...], Field(min_length=2)], "[1]", "items"),
        (Annotated[Tags, Field(min_length=2)], '["a"]', "items"),
        (Annotated[Members, Field(min_length=2)], '{"a": 1}', "members"),
        (Annotated[bytes, Field(min_length=2)], '"a"', "bytes"),
    ],
)
def test_too_short(kind: Any, given: str, unit: str) -> None:
    assert told(kind, given) == f"has to have at least 2 {unit}"


@pytest.mark.parametrize(("kind", "given"), [(str, '""'), (Remark, '""'), (Tags, "[]"), (Members, "{}"), (bytes, '""')])
def test_empty(kind: Any, given: str) -> None:
    assert told(Annotated[kind, Field(min_length=1)], given) == "may not be empty"


def test_bytes_behind_a_validator() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[Bytes, Field(max_length=3)]).validate_python(b"four")
    assert explained(errors_in(caught.value)[0]) == "may have at most 3 bytes"


def test_an_input_is_converted_only_if_a_message_depends_on_it() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, int]).validate_json('{"a": "x"}')
    assert "input" not in errors_in(caught.value)[0]
