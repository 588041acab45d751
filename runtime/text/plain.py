"""Escapes text from outside for a terminal or a log, so that it cannot move the cursor, color, reorder or hide
anything.

These characters are escaped: control characters (C0, DEL, C1), characters that change the direction of text or are
invisible (Unicode's category Cf, and letters and marks that are drawn as nothing), line and paragraph separators, lone
surrogates and private use. Joiners and variation selectors stay where scripts and emoji need them: one after a
character that is not ASCII.
"""

import unicodedata
from collections.abc import Callable, Iterator

#: Unicode categories that are escaped.
ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Letters and marks that are drawn as nothing: fillers, the grapheme joiner, Khmer's inherent vowels, Mongolian's
#: selectors.
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
JOINERS = frozenset("\u200c\u200d")
SELECTORS = frozenset(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
UNSEEN = JOINERS | SELECTORS
NONE: frozenset[str] = frozenset()


def plain(text: str, keep: str = "\n\t") -> str:
    """The text with escapes such as `\\x1b` and `\\u202e` for unsafe characters; characters in `keep` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(text, keep, _escape))


def plain_json(text: str) -> str:
    """The same for the text of a JSON document. Parsing it gives the same value as before."""
    if text.isascii() and "\x7f" not in text:  # JSON itself escapes the other control characters
        return text
    return "".join(_shown(text, "\n", _json_escape))


def _shown(text: str, keep: str, escape: Callable[[str], str]) -> Iterator[str]:
    """Each character, or its escape."""
    may_follow = NONE
    for char in text:
        if char in UNSEEN:
            hidden = char not in may_follow
            may_follow = JOINERS if char in SELECTORS and not hidden else NONE
        else:
            hidden = char not in keep and _hidden(char)
            may_follow = NONE if hidden or char.isascii() else UNSEEN
        yield escape(char) if hidden else char


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in ESCAPED or char in INVISIBLE


def _escape(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
