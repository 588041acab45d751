"""SSH public keys as text: `type base64 [comment]`."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
USER_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        *ECDSA,
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
HOST_TYPES = frozenset({"ssh-ed25519", "ssh-rsa", *ECDSA})
#: The longest line that is looked at, in characters.
MOST = 16 * 1024

_LINE = re.compile(r"(\S+) +([A-Za-z0-9+/]+={0,2})(?: +([^\x00-\x1f\x7f]*))?")
#: What can be said of a user's key without reading its contents, as JSON Schema says it.
PATTERN = (
    rf"^[ \r\n]*({'|'.join(re.escape(each).replace(chr(92) + '-', '-') for each in sorted(USER_TYPES))})"
    r" +[A-Za-z0-9+/]+={0,2}( +[^\u0000-\u001f\u007f]*)?[ \r\n]*$"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that says of itself, inside, what it says outside. `data` is its base64."""

    type: str
    data: str
    comment: str

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        raw = hashlib.sha256(base64.b64decode(self.data)).digest()
        return "SHA256:" + base64.b64encode(raw).decode().rstrip("=")


def parse(line: str, types: frozenset[str] = USER_TYPES) -> PublicKey:
    """One public key. Raises ValueError, with a text that says what is wrong."""
    if len(line) > MOST:
        raise ValueError(f"longer than {MOST} characters")
    found = _LINE.fullmatch(line.strip(" \r\n"))
    if found is None:
        raise ValueError("not a public key on one line: type, base64, and a comment if you like")
    type_, data, comment = found.groups()
    if type_ not in types:
        raise ValueError(f"not a key type that is known here: {type_[:40]} ({', '.join(sorted(types))})")
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError("its base64 is broken") from error
    fields = _fields(raw)
    if not fields or fields[0] != type_.encode() or len(fields) < 2:
        raise ValueError(f"its contents are not those of a {type_} key")
    return PublicKey(type_, data, comment or "")


def _fields(raw: bytes) -> list[bytes]:
    """The length-prefixed fields a key is made of; empty when they do not fill it exactly."""
    fields: list[bytes] = []
    at = 0
    while at + 4 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        fields.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return fields if at == len(raw) else []
