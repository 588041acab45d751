"""Any text as the value of a header, without loss: percent-encoded as CloudEvents' NATS binding asks.

Space, `"`, `%` and all that is not visible ASCII becomes `%` and two hexadecimal digits for each byte of its UTF-8.
Earlier versions wrote spaces, `"` and `%` as they are: what is not exactly what `encoded` makes is taken as it stands.
"""

import re
from urllib.parse import quote, unquote

_PLAIN = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_ALL_PLAIN = re.compile(f"[{re.escape(_PLAIN)}]*")


def encoded(text: str) -> str:
    """The header value of a text. Raises UnicodeEncodeError for half a character (a lone surrogate)."""
    return text if _ALL_PLAIN.fullmatch(text) else quote(text, safe=_PLAIN)


def decoded(value: str) -> str:
    """The text that a header value stands for."""
    if "%" not in value:
        return value
    try:
        text = unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value
    return text if encoded(text) == value else value
