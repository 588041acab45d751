"""Masks credentials in text before it is shown or written."""

import re

from runtime.text.urls import shown

_WORD = r"pass(?:word|wd|phrase)"
#: Between the word and the secret: =, :, with a JSON quote before it, or in SQL a space.
_IS = rf"(?i)({_WORD}[\"']?(?:\s*[=:]\s*|\s+))"
#: Masked text and its replacement: user and password in a URL; the text after Bearer, Basic, password=; the secret
#: of a token.
MASKS = (
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#'\"]{1,2000}@"), r"\1***@"),
    (re.compile(rf"{_IS}'(?:[^'\\]|\\.|''){{0,4000}}'?"), r"\1***"),
    (re.compile(rf'{_IS}"(?:[^"\\]|\\.){{0,4000}}"?'), r'\1"***"'),
    (
        re.compile(rf"(?i)({_WORD}\s*=\s*|\b{_WORD}\s*:\s*|\b(?:bearer|basic)\s+)[^\s'\",;]{{1,4000}}"),
        r"\1***",
    ),
    (re.compile(r"(nbl_[a-z0-9]{12}_)[A-Za-z0-9]{8,100}"), r"\1***"),
)
#: The query of an image's URL may contain a signature.
_QUERY = re.compile(r"(?i)\bhttps?://[^\s?'\"<>]{1,2000}\?[^\s'\"<>]{1,4000}")


#: A text without any of these needs no further check: almost all lines of a log.
_SIGNS = ("://", "pass", "bearer", "basic", "nbl_")


def masked(text: str) -> str:
    """The text without credentials, as far as their form shows them."""
    folded = text.casefold()
    if not any(sign in folded for sign in _SIGNS):
        return text
    for pattern, instead in MASKS:
        text = pattern.sub(instead, text)
    return _QUERY.sub(lambda found: shown(found[0]), text)
