"""What a node makes of the CPUs that it finds."""

import platform
from pathlib import Path

import pytest

from node_daemon.hypervisor.machine import AARCH64, X86_64, Machine
from node_daemon.reconcile import host
from runtime.local import libvirtd
from runtime.tasks.patience import CannotRun


@pytest.mark.parametrize(
    ("cpus", "machine"), [("x86_64", X86_64), ("AMD64", X86_64), ("aarch64", AARCH64), ("arm64", AARCH64)]
)
def test_guests_get_the_machine_of_the_hosts_architecture(
    cpus: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: cpus)
    assert host.machine() is machine
    assert host.architecture() == machine.architecture


def test_a_host_of_another_kind_is_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(CannotRun, match="riscv64 CPUs; a node needs one of x86_64, aarch64"):
        host.machine()


@pytest.mark.parametrize(
    ("cpus", "flags", "device", "trouble"),
    [
        ("x86_64", "flags: fpu vme", True, "the CPU shows neither vmx nor svm"),
        ("x86_64", "flags: fpu vmx", True, None),
        ("aarch64", "Features: fp asimd", True, None),
        ("aarch64", "Features: fp asimd", False, "there is no /dev/kvm"),
    ],
)
def test_whether_kvm_is_usable(
    cpus: str, flags: str, device: bool, trouble: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ARM shows no flag for it: the kernel makes the device where it can."""
    monkeypatch.setattr(platform, "machine", lambda: cpus)
    monkeypatch.setattr(Path, "read_text", lambda path: flags)
    monkeypatch.setattr(Path, "exists", lambda path: device)
    found = libvirtd.kvm_trouble()
    monkeypatch.undo()
    assert found == trouble
