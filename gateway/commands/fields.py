"""The fields that bodies of commands have: what each may say, and how it is taken."""

import base64
import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
)

from domain.base import at_most
from domain.contract import Watchdog
from domain.vm import RestartPolicy
from projections import ssh

MOST_USER_DATA = 64 * 1024
#: Characters of user-data in base64, including line breaks.
MOST_ENCODED = 96 * 1024
MOST_KEYS = 64


def user_data(text: str) -> str:
    if len(text) > MOST_USER_DATA or len(text.encode()) > MOST_USER_DATA:
        raise ValueError(f"has to be at most {MOST_USER_DATA} bytes")
    if "\0" in text:
        raise ValueError("has to be text, without NUL characters")
    return text


def encoded(text: str) -> str:
    """Base64, without the line breaks that programs put into it."""
    joined = "".join(text.split())
    if not re.fullmatch(BASE64, joined):  # b64decode accepts wrong padding
        raise ValueError("has to be base64 (A-Z, a-z, 0-9, + and /, padded with =)")
    if len(base64.b64decode(joined)) > MOST_USER_DATA:
        raise ValueError(f"has to be at most {MOST_USER_DATA} bytes before it is encoded")
    return joined


def public_key(line: str) -> str:
    return str(ssh.parse(line))


PublicKey = Annotated[
    str, AfterValidator(public_key), Field(json_schema_extra={"pattern": ssh.PATTERN, "format": "ssh-public-key"})
]
#: A word, where a strict model would have the enumeration itself.
Policy = Annotated[RestartPolicy, Field(strict=False)]
WatchdogAction = Annotated[
    Watchdog, Field(strict=False, description="what a watchdog device (i6300esb) does; disabled: there is none")
]
SshKeys = Annotated[tuple[PublicKey, ...], Field(max_length=MOST_KEYS), at_most(MOST_KEYS)]
UserData = Annotated[
    str,
    AfterValidator(user_data),
    Field(
        description=f"at most {MOST_USER_DATA} bytes in UTF-8",
        json_schema_extra={"maxLength": MOST_USER_DATA, "pattern": r"^[^\u0000]*$"},
    ),
]
#: Base64 with white space anywhere: groups of four, the last of which may be padded.
BASE64 = r"^\s*(([A-Za-z0-9+/]\s*){4})*(([A-Za-z0-9+/]\s*){2}=\s*=\s*|([A-Za-z0-9+/]\s*){3}=\s*)?$"
UserDataBase64 = Annotated[
    str,
    StringConstraints(max_length=MOST_ENCODED),
    AfterValidator(encoded),
    Field(
        description=f"the same in base64: any bytes, such as what gzip makes; at most {MOST_USER_DATA} before encoding",
        json_schema_extra={"contentEncoding": "base64", "pattern": BASE64},
    ),
]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
