"""The folders of benchmarks and tests in /var/tmp, and the leftovers of those that were killed.

A folder has the process id of its user in its name. If there is no such process, the folder is a leftover. The servers
and roles that a process starts end with it (`runtime/local/child.py`). Guests do not end, because libvirt runs them.
They are recognised by the folder of their files.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import libvirt

#: QEMU and Postgres run as other users, which may not enter /root, and libvirt refuses files in /tmp.
BASE = Path("/var/tmp")
NAME = re.compile(r"nebula-[a-z0-9]+-([0-9]+)-\w+")


@contextmanager
def home(purpose: str) -> Iterator[Path]:
    """A new folder, which other users can enter. It is removed in the end. `purpose`: a word for its name."""
    folder = Path(tempfile.mkdtemp(prefix=f"nebula-{purpose}-{os.getpid()}-", dir=BASE))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_leftover(folder: Path) -> bool:
    """Whether the process that made this folder has ended."""
    found = NAME.fullmatch(folder.name)
    return found is not None and not Path("/proc", found[1]).exists()


def leftovers() -> list[Path]:
    return [folder for folder in BASE.glob("nebula-*") if is_leftover(folder)]


def remove_leftovers(uri: str = "qemu:///system") -> None:
    """Remove the folders and guests of processes that were killed.

    While libvirt does not answer, the folders of nodes stay, because their guests cannot be removed.
    """
    folders = leftovers()
    of_nodes = [folder for folder in folders if (folder / "node").exists()]
    if of_nodes:
        try:
            connection = libvirt.open(uri)
        except libvirt.libvirtError:
            folders = [folder for folder in folders if folder not in of_nodes]
        else:
            remove_guests(connection, of_nodes)
            connection.close()
    for folder in folders:
        for mounted in mounts_in(folder):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def mounts_in(folder: Path) -> list[str]:
    """The mount points in a folder."""
    targets = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [target for target in targets if target.startswith(f"{folder}/")]


def remove_guests(connection: libvirt.virConnect, folders: Sequence[Path]) -> None:
    """Destroy and undefine the domains that have files in these folders."""
    flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    if connection.getType() == "QEMU":
        flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):  # it was removed meanwhile
            described = domain.XMLDesc()
            if not any(f"{folder}/" in described for folder in folders):
                continue
            persistent = domain.isPersistent()  # a transient domain is removed when it ends
            if domain.isActive():
                with contextlib.suppress(libvirt.libvirtError):  # it has ended meanwhile
                    domain.destroy()
            if persistent:
                domain.undefineFlags(flags)
