"""The types of the fields in the messages and the state of images."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from domain.base import LINES_PATTERN, to_nfc
from domain.spellings import lower

Word = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"),
    BeforeValidator(lower),
    Field(json_schema_extra={"pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"}),
]
"""A distribution or a release, such as debian or 24.04."""


def lines(text: str) -> str:
    """A printable text of several lines, without leading and trailing spaces and line ends. Raises ValueError."""
    if not all(char.isprintable() or char == "\n" for char in text):
        raise ValueError("has to be printable characters and line ends")
    return text.strip(" \n")


Description = Annotated[
    str,
    StringConstraints(max_length=2000),
    AfterValidator(lines),
    AfterValidator(to_nfc),
    Field(json_schema_extra={"pattern": LINES_PATTERN}),
]


class ImagePhase(StrEnum):
    VERIFYING = "verifying"
    AVAILABLE = "available"
    REJECTED = "rejected"
    DELETED = "deleted"


#: Phases of images that can never be used again.
UNUSABLE = (ImagePhase.DELETED, ImagePhase.REJECTED)

#: The names of the verbs.
REGISTER, DELETE = "register", "delete"
