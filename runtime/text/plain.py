"""Text of others on its way to a terminal or a log: it cannot move the cursor, colour, reorder or hide anything.

Escaped are control characters (C0, DEL, C1), what changes the direction of text or cannot be seen (Unicode's category
Cf, and letters and marks that are drawn as nothing), line and paragraph separators, lone surrogates and private use.
Joiners and variation selectors stay where scripts and emoji need them: one behind a character that is not ASCII.
"""

import unicodedata
from collections.abc import Callable, Iterator

#: Categories of characters that are escaped.
ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
#: Letters and marks that are drawn as nothing: fillers, the grapheme joiner, Khmer's inherent vowels, Mongolian's
#: selectors.
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
JOINERS = frozenset("\u200c\u200d")
SELECTORS = frozenset(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
UNSEEN = JOINERS | SELECTORS
NONE: frozenset[str] = frozenset()


def plain(text: str, keep: str = "\n\t") -> str:
    """The text with `\\x1b`, `\\u202e` and the like in place of what is not plain; characters in `keep` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(text, keep, _escape))


def plain_json(text: str) -> str:
    """The same for a JSON document: what is escaped stays the same document to whoever parses it."""
    if text.isascii() and "\x7f" not in text:  # JSON itself escapes the other control characters
        return text
    return "".join(_shown(text, "\n", _json_escape))


def _shown(text: str, keep: str, escape: Callable[[str], str]) -> Iterator[str]:
    """Each character, or what stands for it."""
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
