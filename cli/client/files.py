"""Files that people name on the command line."""

from pathlib import Path

from cli.client.errors import Usage
from runtime.unusable import sentence


def readable(file: Path) -> Path:
    """The file, when it can be read: better known now than after a minute of work. Raises Usage.

    What is neither a file nor a folder, such as a pipe, can be read once only, and is left for that.
    """
    try:
        if file.is_file() or file.is_dir() or not file.exists():
            file.open("rb").close()
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    return file


def writable(file: Path) -> Path:
    """The file, when there is none yet and there is a folder for it. Raises Usage."""
    try:
        if file.exists():
            raise Usage(f"{file} exists already")
        if not file.parent.is_dir():
            raise Usage(f"{file.parent} is no folder: {file.name} cannot be written there")
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    return file
