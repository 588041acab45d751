"""The programs of the version before this one, which run with the packages of this one.

`python -m tests.upgrade.programs COMMIT` stores those of a commit in this folder, in the place of the ones before. It
is needed once after each version; the tests need no history of the repository, which CI may not have.
"""

import io
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
#: What a role needs to run, and what says which packages it was written for.
STORED = (
    *("cli", "domain", "eventstore", "gateway", "handlers", "node_daemon", "projections", "runtime"),
    *("nats.conf", "postgres.sql", "pyproject.toml"),
)
PATTERN = "programs-*.tar.xz"


def archive() -> Path:
    """The file with the programs."""
    (found,) = HERE.glob(PATTERN)
    return found


def unpack(folder: Path) -> Path:
    """The folder with the programs, which other users can enter: guest-data runs as one."""
    folder.mkdir(mode=0o755)
    with tarfile.open(archive()) as stored:
        stored.extractall(folder, filter="data")
    return folder


def environment(folder: Path | None) -> Mapping[str, str]:
    """What `python -m` needs to run the programs in a folder instead of those of the working folder; None: these."""
    return {} if folder is None else {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def store(commit: str) -> Path:
    """Store the programs of a commit of this repository. Raises CalledProcessError."""
    git = ["git", "-C", str(HERE.parents[1])]
    name = subprocess.run([*git, "rev-parse", "--short=7", commit], check=True, capture_output=True, text=True).stdout
    made = subprocess.run([*git, "archive", "--format=tar", commit, *STORED], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(made)) as whole:
        assert {member.name.split("/")[0] for member in whole} >= set(STORED)
    for earlier in HERE.glob(PATTERN):
        earlier.unlink()
    file = HERE / PATTERN.replace("*", name.strip())
    file.write_bytes(lzma.compress(made, preset=9 | lzma.PRESET_EXTREME))
    return file


if __name__ == "__main__":
    print(store(sys.argv[1]))
