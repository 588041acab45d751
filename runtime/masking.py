"""Credentials that turn up in text: masked before it is shown or written anywhere."""

import re

#: What is masked, and what stands there instead: user and password in a URL; what follows Bearer, Basic, password=.
MASKS = (
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#'\"]{1,2000}@"), r"\1***@"),
    (re.compile(r"(?i)\b(password\s*[=:]\s*)'(?:[^'\\]|\\.){1,4000}'?"), r"\1***"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+|password\s*[=:]\s*)[^\s'\",;]{1,4000}"), r"\1***"),
)


def masked(text: str) -> str:
    """The text without credentials, as far as they can be told from their form."""
    for pattern, instead in MASKS:
        text = pattern.sub(instead, text)
    return text
