"""The state of a typical VM, whose bytes are the dictionary with which the states of others are compressed.

What it contains has no meaning. The more it resembles real VMs, the less memory these take.
"""

from datetime import UTC, datetime

from domain.accepted_requests import NONE, AcceptedRequest
from domain.base import Resources
from domain.contract import Desired
from domain.guest import AddressSource, HostKey
from domain.vm import Vm
from domain.vm.values import Considered, Phase, Ready, Spec

_ID = "9f1c53a0-7be2-4d68-8c34-ab01de27f965"
_DIGEST = "0123456789abcdef" * 4
_FINGERPRINT = "SHA256:"
_KEYS = (
    ("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAABgQC"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABB"),
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAI"),
)
_AT = datetime(2026, 1, 1, 12, 30, 45, 123456, tzinfo=UTC)


def typical() -> tuple[str, datetime, Vm]:
    """The digest and the time of the last event of a VM that runs, and its state."""
    size = {"vcpus": 1, "memory_mib": 512, "disk_gib": 4}
    found = Vm(
        id=_ID,
        project="default",
        name="web-1",
        image="debian-13",
        spec=Spec(**size),
        phase=Phase.RUNNING,
        desired=Desired.ON,
        boots=1,
        created_at=_AT,
        updated_at=_AT,
        labels={"tier": "web", "team": "team-1"},
        ssh_keys=("ssh-ed25519 " + _KEYS[-1][1],),
        created_by="user:admin",
        disk_made=1,
        running_size=Resources(**size),
        mac="52:54:00:12:34:56",
        node="node-1",
        epoch=1,
        addresses=("192.168.122.10",),
        address_sources=(AddressSource(address="192.168.122.10", source="lease"),),
        started_at=_AT,
        first_ready_at=_AT,
        ready_at=_AT,
        ready=Ready(at=_AT, boots=1, boot=_ID),
        booted=1,
        host_boot=_ID.replace("-", ""),
        guest_boots=1,
        host_keys=tuple(HostKey(type=type_, key=key, fingerprint=_FINGERPRINT) for type_, key in _KEYS),
        considered=(Considered(node="node-1"),),
        sequence=2,
        lease=1,
        flavor="small",
        operations=NONE.insert(_ID, AcceptedRequest("create", _DIGEST)),
    )
    return _DIGEST, _AT, found
