"""The form of tokens: `nbl_<id>_<secret>`. The id names the token in logs and events; the secret is shown once."""

import re
import secrets
import string

PREFIX = "nbl_"
ID, SECRET = 12, 43
"""Characters of an id and of a secret: 62 and 256 random bits."""
ID_LETTERS = string.ascii_lowercase + string.digits
SECRET_LETTERS = string.ascii_letters + string.digits
TOKEN = re.compile(rf"{PREFIX}([a-z0-9]{{{ID}}})_([A-Za-z0-9]{{{SECRET}}})")


def split(token: str) -> tuple[str, str] | None:
    """The id and the secret of a token; None if it does not have this form."""
    found = TOKEN.fullmatch(token)
    return (found[1], found[2]) if found is not None else None


def joined(id_: str, secret: str) -> str:
    return f"{PREFIX}{id_}_{secret}"


def random() -> str:
    """A new token."""
    return joined(
        in_letters(secrets.token_bytes(32), ID_LETTERS, ID), in_letters(secrets.token_bytes(32), SECRET_LETTERS, SECRET)
    )


def in_letters(number: bytes, letters: str, length: int) -> str:
    """Random bytes as text of this length."""
    rest, text = int.from_bytes(number), ""
    for _ in range(length):
        rest, index = divmod(rest, len(letters))
        text += letters[index]
    return text


def named(text: str) -> str | None:
    """The id of the token in a text; None if there is none. The token need not be a valid one."""
    found = TOKEN.search(text)
    return found[1] if found is not None else None
