"""What the states of libvirt mean. Their reasons are numbers that mean something else in each state."""

from dataclasses import dataclass
from typing import Any, Literal

import libvirt
import pytest

from domain.contract import Power
from node_daemon.hypervisor.domain_state import look
from tests.node_daemon.documents import new_vm

TAG = '<nebula:vm xmlns:nebula="urn:nebula" boots="1" epoch="1" generation="1" host_boot="b"/>'


@dataclass
class Domain:
    """A domain of ours, and the connection that finds it."""

    vm: str
    found: tuple[int, int]

    def lookupByUUIDString(self, _: str) -> "Domain":
        return self

    def UUIDString(self) -> str:
        return self.vm

    def state(self) -> tuple[int, int]:
        return self.found

    def metadata(self, *_: Any) -> str:
        return TAG

    def hasManagedSaveImage(self) -> bool:
        return False

    def isPersistent(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("state", "reason", "cause", "forced"),
    [
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, "guest", False),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, "crashed", False),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, None, True),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, None, False),
        (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_PANICKED, "crashed", False),
        (libvirt.VIR_DOMAIN_CRASHED, libvirt.VIR_DOMAIN_CRASHED_UNKNOWN, "crashed", False),
    ],
)
def test_why_a_domain_is_off(state: int, reason: int, cause: Literal["guest", "crashed"] | None, forced: bool) -> None:
    """A panic is a crash also in the moment before libvirt has ended the domain."""
    vm = new_vm()
    have = look(Domain(vm, (state, reason)), vm)
    assert (have.power, have.cause, have.forced) == (Power.OFF, cause, forced)
