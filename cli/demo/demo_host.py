"""Around the VM of `nebula demo`: its platform, and its traces on this host that the API does not show."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from cli.client.errors import CliError

#: Seconds for `nebula up` to stop what it started.
STOP_SECONDS = 60.0


@contextmanager
def platform(environment: Mapping[str, str], say: Callable[[str], None], *, cluster: bool = False) -> Iterator[None]:
    """Run a `nebula up` for the demo, or a cluster with this machine as its only node, and stop it at the end.

    Raises CliError if it does not become ready.

    In a session of its own, so that Ctrl-C leaves it running until the VM has been cleaned up.
    """
    program = ["cli.local.cluster", "--node"] if cluster else ["cli.main", "up"]
    environment = {**environment, **({"NEBULA_SIMULATE": "0"} if cluster else {})}
    argv = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", *program]
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        last = ""
        for line in child.stdout:
            last = line.rstrip()
            if last.startswith("ready"):
                break
            say(last)
        else:
            raise CliError(f"the platform did not start: {last}")
        threading.Thread(target=child.stdout.read, daemon=True).start()
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@dataclass(frozen=True)
class Traces:
    """The traces of a VM on its host: they must exist while it lives, and not after it was deleted."""

    vm: str
    uri: str
    disk: Path
    console: Path
    #: the disk that brings the guest the secret with which it gets its configuration
    seed: Path

    @property
    def domain(self) -> bool:
        return domain_xml(self.uri, self.vm) is not None

    @property
    def has_disk(self) -> bool:
        return self.disk.exists()

    @property
    def has_seed(self) -> bool:
        return self.seed.exists()

    def last_words(self, lines: int) -> list[str]:
        """The end of the serial log."""
        try:
            return self.console.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return []


def traces(uri: str, vm: str) -> Traces:
    """The traces of a VM whose domain runs on this host. Raises CliError if there is no such domain."""
    xml = domain_xml(uri, vm)
    if xml is None:
        raise CliError(f"libvirt at {uri} has no domain of this VM: run the demo on the host where its node is")
    root = ET.fromstring(xml)  # noqa: S314  (from libvirt, as it wrote it)
    return Traces(
        vm=vm,
        uri=uri,
        disk=Path(_attribute(root, "devices/disk/source", "file")),
        console=Path(_attribute(root, "devices/serial/log", "file")),
        seed=Path(_attribute(root, "devices/disk[readonly]/source", "file")),
    )


def domain_xml(uri: str, vm: str) -> str | None:
    """The domain as libvirt has it; None when there is none."""
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised: no copies on stderr
    connection = libvirt.open(uri)
    try:
        return str(connection.lookupByUUIDString(vm).XMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None
    finally:
        connection.close()


def _attribute(root: ET.Element, path: str, name: str) -> str:
    element = root.find(path)
    value = element.get(name) if element is not None else None
    if value is None:
        raise CliError(f"the domain has no {path} {name}")
    return value
