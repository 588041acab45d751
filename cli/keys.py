"""SSH public keys as people give them: the key itself, or a file with some."""

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import Usage

SshKeys = Annotated[
    list[str] | None, typer.Option("--ssh-key", help="Public key, or a file with some; may be repeated.")
]


def public_keys(given: list[str] | None) -> list[str]:
    """All keys, in their order. Raises Usage."""
    return [key for each in given or [] for key in _keys(each)]


def _keys(given: str) -> list[str]:
    if given.startswith(("ssh-", "ecdsa-", "sk-")):
        return [given]
    lines = [line.strip() for line in text_of(Path(given)).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def text_of(file: Path) -> str:
    """What a file holds. Raises Usage."""
    try:
        return file.read_text()
    except OSError as error:
        raise Usage(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Usage(f"{file} is no text: {error.reason} at byte {error.start}") from error
