"""SSH public keys as people give them: the key itself, or a file with one or more."""

import errno
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path
from typing import Annotated

import typer

from cli.client.errors import Usage
from runtime.files.unusable import sentence

#: Marks of private keys of OpenSSH, PEM, PGP, PuTTY, SSH.com, age and others, and of OpenSSH's own without its first
#: line. Anything else that is no public key is refused, too: this pattern only names the mistake.
PRIVATE = re.compile(r"(PRIVATE|SECRET)[ -]KEY|PuTTY-User-Key-File|BEGIN SSH2 ENCRYPTED|b3BlbnNzaC1rZXktdjE")
#: How a public key begins.
PUBLIC = ("ssh-", "ecdsa-", "sk-")
#: A longer text (in characters) that is not the name of a file may be a key and not a path.
MOST_PATH = 255
#: The shape of a public key. The platform checks its content.
LINE = re.compile(r"(ssh|ecdsa|sk)-[A-Za-z0-9@.-]+[ \t]+[A-Za-z0-9+/]+={0,2}([ \t]+[^\x00-\x08\x0a-\x1f\x7f]*)?")
#: A key after other text: options, as `authorized_keys` may have them.
BEHIND = re.compile(r"[ \t](ssh|ecdsa|sk)-[A-Za-z0-9@.-]+[ \t]+AAAA[A-Za-z0-9+/]")

SshKeys = Annotated[
    list[str] | None, typer.Option("--ssh-key", help="Public key, or a file with public keys. Repeatable.")
]


def public_keys(given: list[str] | None) -> list[str]:
    """All keys, in their order. Raises Usage."""
    return [key for each in given or [] for key in _keys(each)]


def _keys(given: str) -> list[str]:
    if PRIVATE.search(given):
        raise Usage("--ssh-key was given a private key; nothing was sent. Give the public one, or its file (.pub)")
    if given.lstrip("\ufeff \t\r\n").startswith(PUBLIC) or BEHIND.search(given):
        return [_public(given.strip("\ufeff \t\r\n"), "--ssh-key")]
    why = "it has several lines" if "\n" in given else _missing(given) if len(given) > MOST_PATH else ""
    if why:  # a text that is not the name of a file may be a secret: it is not repeated
        raise Usage(f"--ssh-key was given neither a public key nor the path of a file ({why}); nothing was sent")
    text = text_of(Path(given))
    if PRIVATE.search(text):
        raise Usage(f"{given} holds a private key; nothing was sent. Give the public one: {given}.pub")
    lines = enumerate((line.strip() for line in text.split("\n")), start=1)
    found = [_public(line, f"{given}, line {number}") for number, line in lines if line and not line.startswith("#")]
    if not found:
        raise Usage(f"{given} holds no public key")
    return found


def _missing(path: str) -> str:
    """Why there is no file at a path; empty if there is one."""
    try:
        Path(path).stat()
    except OSError as error:
        return "the name is too long" if error.errno == errno.ENAMETOOLONG else "there is no such file"
    except ValueError:
        return "there is no such file"
    return ""


def _public(line: str, where: str) -> str:
    """The line, when it looks like a public key. Raises Usage, without the line itself: it may be a secret."""
    if BEHIND.search(line) and not LINE.fullmatch(line):
        raise Usage(f"{where}: the key has options before its type; leave them out, nothing was sent")
    if not LINE.fullmatch(line):
        raise Usage(
            f"{where}: not a public key on one line (type, base64, and a comment if you like); nothing was sent"
        )
    return line


def text_of(file: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, without a byte order mark. Raises Usage."""
    try:
        data = file.read_bytes()
        return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    except UnicodeDecodeError as error:
        raise Usage(f"{file} is not a text file: {error.reason} at byte {error.start}") from error
