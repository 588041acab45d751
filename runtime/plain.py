"""Text of others on its way to a terminal or a log: it cannot move the cursor, colour, reorder or hide anything.

Escaped are control characters (C0, DEL, C1), what changes the direction of text or cannot be seen (Unicode's category
Cf but for the two joiners that scripts and emoji need), line and paragraph separators, lone surrogates and private use.
"""

import unicodedata

#: Categories of characters that are escaped.
ESCAPED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
JOINERS = "\u200c\u200d"


def plain(text: str, keep: str = "\n\t") -> str:
    """The text with `\\x1b`, `\\u202e` and the like in place of what is not plain; characters in `keep` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _hidden(char) else _escape(char) for char in text)


def plain_json(text: str) -> str:
    """The same for a JSON document: what is escaped stays the same document to whoever parses it."""
    if text.isascii() and "\x7f" not in text:  # JSON itself escapes the other control characters
        return text
    return "".join(char if char == "\n" or not _hidden(char) else _json_escape(char) for char in text)


def _hidden(char: str) -> bool:
    return unicodedata.category(char) in ESCAPED and char not in JOINERS


def _escape(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
