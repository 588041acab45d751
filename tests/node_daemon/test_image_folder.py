"""Who passes through the folder of cached images: QEMU's user, by its group, and nobody else."""

import asyncio
import os
from pathlib import Path

import libvirt
import pytest

from node_daemon.hypervisor import libvirt_adapter
from node_daemon.hypervisor.hypervisor import Unreachable
from node_daemon.storage.image_keeper import keep_closed
from node_daemon.storage.images import Images
from runtime.tasks.tasks import end
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other groups")

GROUP = 64055


def access(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_mode & 0o777, found.st_gid


async def test_only_the_group_of_qemu_passes_through(tmp_path: Path) -> None:
    """It is asked again until libvirt answers, and a folder that was removed is made as it was."""
    folder = tmp_path / "images"
    images = Images(folder, [])
    answers = [Unreachable("libvirt"), GROUP]

    async def group() -> int | None:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return GROUP

    task = asyncio.create_task(keep_closed(images, group, every=0.01))
    try:
        await eventually(lambda: access(folder) == (0o710, GROUP), "it is closed")
        folder.rmdir()
        await eventually(lambda: folder.exists() and access(folder) == (0o710, GROUP), "it is made again")
    finally:
        await end([task])
    assert access(folder) == (0o710, GROUP)
    Images(folder, [])
    assert access(folder) == (0o710, GROUP), "also before libvirt answers a daemon that has just started"
    images.allow(None)
    assert access(folder)[0] == 0o711


def test_libvirt_tells_the_group() -> None:
    class Connection:
        def __init__(self, text: str) -> None:
            self.text = text

        def getCapabilities(self) -> str:
            return self.text

    def of(*models: str) -> int | None:
        return libvirt_adapter._qemu_group(Connection(f"<capabilities><host>{''.join(models)}</host></capabilities>"))

    none = "<secmodel><model>none</model></secmodel>"
    dac = "<secmodel><model>dac</model><baselabel type='kvm'>+64055:+107</baselabel></secmodel>"
    other = "<secmodel><model>apparmor</model><baselabel type='kvm'>+1:+2</baselabel></secmodel>"
    assert of(none, other, dac) == 107
    assert of(none, other) is None
    assert of() is None
    connection = libvirt.open("test:///default")
    assert libvirt_adapter._qemu_group(connection) is None
    connection.close()
