"""SSH public keys as text: `type base64 [comment]`.

A comment may hold any character but those that end a line for somebody: `authorized_keys` is a file of lines, and
cloud-init reads it with Python's `str.splitlines`. With one of them a comment could become a key of its own.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

ECDSA = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
#: What a key is made of behind its type: so many fields.
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
#: The longest line that is looked at, in characters.
MOST = 16 * 1024

_ENDS_LINES = "\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u2028\\u2029"
_LINE = re.compile(rf"(\S+)[ \t]+([A-Za-z0-9+/]+={{0,2}})(?:[ \t]+([^{_ENDS_LINES}]*))?")
_UNFIT = re.compile(rf"[\t{_ENDS_LINES}\ud800-\udfff]")
_AROUND = "\ufeff \t\r\n"
#: What can be said of a user's key without reading its contents, as JSON Schema says it.
PATTERN = (
    rf"^[\ufeff \t\r\n]*({'|'.join(re.escape(each).replace(chr(92) + '-', '-') for each in sorted(USER_TYPES))})"
    r"[ \t]+[A-Za-z0-9+/]+={0,2}([ \t]+[^\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029]*)?[ \t\r\n]*$"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that says of itself, inside, what it says outside. `data` is its base64."""

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
    """One public key. Raises ValueError, with a text that says what is wrong."""
    if len(line) > MOST:
        raise ValueError(f"longer than {MOST} characters")
    found = _LINE.fullmatch(line.strip(_AROUND))
    if found is None or not found[1][0].isalnum():
        raise ValueError(_fault(line.strip(_AROUND), types))
    type_, data, comment = found.groups()
    if type_ not in types:
        raise ValueError(f"its key type is none that is known here ({', '.join(sorted(types))})")
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError("its base64 is broken") from error
    if not _fits(type_, _fields(raw)):
        raise ValueError(f"its contents are not those of a {type_} key")
    data = base64.b64encode(raw).decode()  # sshd takes no padding that is too much
    return PublicKey(type_, data, fit(comment or "").strip())


def fit(text: str) -> str:
    """The text with blanks in the place of what no line of `authorized_keys` may hold."""
    return _UNFIT.sub(" ", text)


def _fault(line: str, types: frozenset[str]) -> str:
    """Which part keeps a line from being a key, without a word of it: it may be a secret."""
    if "PRIVATE KEY" in line:
        return "a private key: keep it to yourself, and give the public one"
    if "SSH2 PUBLIC KEY" in line or "BEGIN" in line:
        return "a key in another format: `ssh-keygen -i -f FILE` prints it as type, base64 and comment"
    words = line.split()
    type_ = next((place for place, word in enumerate(words) if word in types), None)
    if type_:
        return "it begins with options: a key here has no options, leave out what stands before its type"
    if len(line.splitlines()) > 1:
        return "more than one line: give one key, and no line breaks in its comment"
    if type_ == 0 and len(words) > 2 and re.fullmatch("[A-Za-z0-9+/]+={0,2}", words[1]):
        return "its comment holds control characters"
    if type_ == 0 and len(words) > 1:
        return "its base64 is broken"
    return "not a public key on one line: type, base64, and a comment if you like"


def _fits(type_: str, fields: list[bytes]) -> bool:
    """Whether a key of that type is made of these: sshd passes by any other, and nobody could log in with it."""
    if len(fields) != 1 + PARTS[type_] or fields[0] != type_.encode():
        return False
    if "ed25519" in type_:
        return len(fields[1]) == ED25519
    return "ecdsa" not in type_ or fields[1] == type_.removesuffix("@openssh.com").rpartition("-")[2].encode()


def _fields(raw: bytes) -> list[bytes]:
    """The length-prefixed fields a key is made of; empty when they do not fill it exactly."""
    fields: list[bytes] = []
    at = 0
    while at + 4 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        fields.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return fields if at == len(raw) else []
