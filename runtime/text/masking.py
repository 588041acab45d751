"""Credentials that turn up in text: masked before it is shown or written anywhere."""

import re

from runtime.text.urls import shown

_WORD = r"pass(?:word|wd|phrase)"
#: What stands between the word and what is secret: =, :, a quote of JSON before it, or in SQL a blank.
_IS = rf"(?i)({_WORD}[\"']?(?:\s*[=:]\s*|\s+))"
#: What is masked, and what stands there instead: user and password in a URL; what follows Bearer, Basic, password=.
MASKS = (
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/?#'\"]{1,2000}@"), r"\1***@"),
    (re.compile(rf"{_IS}'(?:[^'\\]|\\.|''){{0,4000}}'?"), r"\1***"),
    (re.compile(rf'{_IS}"(?:[^"\\]|\\.){{0,4000}}"?'), r'\1"***"'),
    (
        re.compile(rf"(?i)({_WORD}\s*=\s*|\b{_WORD}\s*:\s*|\b(?:bearer|basic)\s+)[^\s'\",;]{{1,4000}}"),
        r"\1***",
    ),
)
#: Behind the `?` of an image's URL may stand a signature.
_QUERY = re.compile(r"(?i)\bhttps?://[^\s?'\"<>]{1,2000}\?[^\s'\"<>]{1,4000}")


#: What has none of these needs no look: nearly all lines of a log.
_SIGNS = ("://", "pass", "bearer", "basic")


def masked(text: str) -> str:
    """The text without credentials, as far as they can be told from their form."""
    folded = text.casefold()
    if not any(sign in folded for sign in _SIGNS):
        return text
    for pattern, instead in MASKS:
        text = pattern.sub(instead, text)
    return _QUERY.sub(lambda found: shown(found[0]), text)
