"""SSH public keys as people give them: the key itself, or a file with some."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import Usage

#: What private keys of OpenSSH, PEM, PuTTY and SSH.com begin with, and OpenSSH's own without its first line.
PRIVATE = re.compile(r"PRIVATE KEY|PuTTY-User-Key-File|BEGIN SSH2 ENCRYPTED|b3BlbnNzaC1rZXktdjE|SSH PRIVATE KEY FILE")

SshKeys = Annotated[
    list[str] | None, typer.Option("--ssh-key", help="Public key, or a file with some; may be repeated.")
]


def public_keys(given: list[str] | None) -> list[str]:
    """All keys, in their order. Raises Usage."""
    return [key for each in given or [] for key in _keys(each)]


def _keys(given: str) -> list[str]:
    if PRIVATE.search(given):
        raise Usage("--ssh-key was given a private key; nothing was sent. Give the public one, or its file (.pub)")
    if given.startswith(("ssh-", "ecdsa-", "sk-")):
        return [given]
    text = text_of(Path(given))
    if PRIVATE.search(text):
        raise Usage(f"{given} holds a private key; nothing was sent. Give the public one: {given}.pub")
    lines = [line.strip() for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def text_of(file: Path) -> str:
    """What a file of text holds, without a byte order mark. Raises Usage."""
    try:
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise Usage(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Usage(f"{file} is no text: {error.reason} at byte {error.start}") from error
