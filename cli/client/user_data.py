"""User-data as people give it: a file with any bytes, text or not."""

import base64
from pathlib import Path
from typing import Annotated

import typer

from cli.client.client import Document
from cli.client.errors import Usage
from cli.client.session import note
from runtime.files.unusable import sentence

#: The maximum number of bytes that the platform accepts.
MOST = 64 * 1024

UserData = Annotated[Path | None, typer.Option(help="File for cloud-init; any bytes, also gzip or MIME.")]


def user_data(file: Path | None) -> Document:
    """The fields of a body that carry the file's content; none without a file. Raises Usage."""
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST + 1)
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    if len(data) > MOST:
        raise Usage(
            f"{file} has more than {MOST} bytes; compress it: gzip -k9 {file} makes {file}.gz, which is accepted"
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return {"user_data_base64": base64.b64encode(data).decode()}
    return {"user_data": text}


def warn(answer: Document) -> None:
    """Print the platform's warnings about the user-data that it accepted: those of an operation, or of a preview."""
    for warning in answer.get("warnings") or []:
        note(f"warning: user-data: {warning['detail']} ({warning['code']})")
