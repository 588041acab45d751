"""SSH public keys as text: `type base64 [comment]`.

A comment may contain any character that does not end a line. `authorized_keys` is a file of lines, and cloud-init reads
it with Python's `str.splitlines`. So with a line break in it, a comment could become a second key.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
#: The number of fields of a key after its type.
PARTS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    **dict.fromkeys(ECDSA, 2),
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
#: Bytes of a point of ed25519.
ED25519 = 32
USER_TYPES = frozenset(PARTS)
#: The maximum length of a line, in characters.
MOST = 16 * 1024

_ENDS_LINES = "\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u2028\\u2029"
_LINE = re.compile(rf"(\S+)[ \t]+([A-Za-z0-9+/]+={{0,2}})(?:[ \t]+([^{_ENDS_LINES}]*))?")
_NOT_ALLOWED = re.compile(rf"[\t{_ENDS_LINES}\ud800-\udfff]")
_AROUND = "\ufeff \t\r\n"
#: The pattern of a user's key for JSON Schema; it cannot check the contents of the key.
PATTERN = (
    rf"^[\ufeff \t\r\n]*({'|'.join(re.escape(each).replace(chr(92) + '-', '-') for each in sorted(USER_TYPES))})"
    r"[ \t]+[A-Za-z0-9+/]+={0,2}([ \t]+[^\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029]*)?[ \t\r\n]*$"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key whose contents fit its type. `data` is its base64."""

    type: str
    data: str
    comment: str

    def __str__(self) -> str:
        """The key on one line, with single blanks between its parts."""
        return f"{self.type} {self.data} {self.comment}".rstrip()

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as `ssh-keygen -l` prints it."""
        raw = hashlib.sha256(base64.b64decode(self.data)).digest()
        return "SHA256:" + base64.b64encode(raw).decode().rstrip("=")


def parse(line: str, types: frozenset[str] = USER_TYPES) -> PublicKey:
    """Parse one public key. Raises ValueError with a text for people."""
    if len(line) > MOST:
        raise ValueError(f"longer than {MOST} characters")
    found = _LINE.fullmatch(line.strip(_AROUND))
    if found is None or not found[1][0].isalnum():
        raise ValueError(_fault(line.strip(_AROUND), types))
    type_, data, comment = found.groups()
    if type_ not in types:
        raise ValueError(f"its key type is not supported here: use one of {', '.join(sorted(types))}")
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError("its base64 is broken") from error
    if not _fits(type_, _fields(raw)):
        raise ValueError(f"its contents are not those of a {type_} key")
    data = base64.b64encode(raw).decode()  # sshd refuses too much padding
    return PublicKey(type_, data, single_line(comment or "").strip())


def single_line(text: str) -> str:
    """The text, with a blank for each character that a line of `authorized_keys` must not contain."""
    return _NOT_ALLOWED.sub(" ", text)


def _fault(line: str, types: frozenset[str]) -> str:
    """Which part of a line is wrong. The text does not quote the line: it may be a secret."""
    if "PRIVATE KEY" in line:
        return "a private key: keep it to yourself, and give the public one"
    if "SSH2 PUBLIC KEY" in line or "BEGIN" in line:
        return "a key in another format: `ssh-keygen -i -f FILE` prints it as type, base64 and comment"
    words = line.split()
    type_ = next((place for place, word in enumerate(words) if word in types), None)
    if type_:
        return "it begins with options, which are not allowed here: remove everything before its type"
    if len(line.splitlines()) > 1:
        return "more than one line: give one key, and no line breaks in its comment"
    if type_ == 0 and len(words) > 2 and re.fullmatch("[A-Za-z0-9+/]+={0,2}", words[1]):
        return "its comment holds control characters"
    if type_ == 0 and len(words) > 1:
        return "its base64 is broken"
    return "not a public key on one line: give its type, its base64, and optionally a comment"


def _fits(type_: str, fields: list[bytes]) -> bool:
    """Whether these are the fields of a key of that type. sshd ignores any other key."""
    if len(fields) != 1 + PARTS[type_] or fields[0] != type_.encode():
        return False
    if "ed25519" in type_:
        return len(fields[1]) == ED25519
    return "ecdsa" not in type_ or fields[1] == type_.removesuffix("@openssh.com").rpartition("-")[2].encode()


def _fields(raw: bytes) -> list[bytes]:
    """The length-prefixed fields of a key; empty if they do not fill it exactly."""
    fields: list[bytes] = []
    at = 0
    while at + 4 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        fields.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return fields if at == len(raw) else []
