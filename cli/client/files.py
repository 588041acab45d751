"""Files that people name on the command line."""

from pathlib import Path

from cli.client.errors import Usage
from runtime.files.unusable import sentence


def readable(file: Path) -> Path:
    """Check that the file can be read, before a minute of work is lost. Raises Usage.

    A pipe or a device is not checked, because it can be read only once.
    """
    try:
        if file.is_file() or file.is_dir() or not file.exists():
            file.open("rb").close()
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    return file


def writable(file: Path) -> Path:
    """Check that the file does not exist and that its folder does. Raises Usage."""
    try:
        if file.exists():
            raise Usage(f"{file} exists already")
        if not file.parent.is_dir():
            raise Usage(f"{file.parent} is not a folder: {file.name} cannot be written there")
    except OSError as error:
        raise Usage(sentence(error, file)) from error
    return file
