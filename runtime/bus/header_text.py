"""Any text as a header value, without loss: percent-encoded as CloudEvents' NATS binding requires.

A space, `"`, `%` and each character that is not visible ASCII is written as `%` and two hexadecimal digits for each
byte of its UTF-8. Earlier versions did not encode spaces, `"` and `%`. So a value that `encoded` would not produce is
read unchanged.
"""

import re
from urllib.parse import quote, unquote

_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_ALL_PLAIN = re.compile(f"[{re.escape(_PLAIN)}]*")


def encoded(text: str) -> str:
    """The header value for a text. Raises UnicodeEncodeError for a lone surrogate."""
    return text if _ALL_PLAIN.fullmatch(text) else quote(text, safe=_PLAIN)


def decoded(value: str) -> str:
    """The text that a header value represents."""
    if "%" not in value:
        return value
    try:
        text = unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value
    return text if encoded(text) == value else value
