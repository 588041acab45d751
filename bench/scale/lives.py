"""The events of a large cloud: its projects, users, nodes and images, and the lives of its VMs.

The lives are the same in each run for the same number. Nothing is pending at the end of a life, so handlers that start
on such a log have nothing to decide.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain import mac
from domain.access import Role
from domain.base import Event, ReferenceChecked
from domain.contract import VM_FEATURES
from domain.flavor import FlavorCreated
from domain.guest import AddressSource, HostKey
from domain.image.events import ImageRegistered, ImageVerified
from domain.node.events import CapacityReleased, CapacityReserved, NodeLeased, NodeRegistered, RegisteredInfo
from domain.project.events import ProjectCreated, ProjectRoleBound
from domain.tag import TagCreated
from domain.user import UserCreated
from domain.vm import Considered, Spec
from domain.vm.events import VmDeleted, VmGuestReady, VmPreparing, VmScheduled, VmStarted, VmStopped
from domain.vm.verbs.create import VmRequested
from domain.vm.verbs.delete import VmDeletionRequested
from domain.vm.verbs.start import VmStartRequested
from domain.vm.verbs.stop import VmStopRequested
from eventstore.log.envelope import Context, Ref
from runtime import subjects

START = datetime(2024, 1, 1, tzinfo=UTC)
"""The time of the first event. One VM is requested each second."""
PROJECTS, USERS, TAGS, NODES = 40, 100, 10, 200
IMAGES = ("debian-12", "debian-13", "ubuntu-24-04", "alma-10")
SIZES = {
    "small": Spec(vcpus=1, memory_mib=512, disk_gib=4),
    "medium": Spec(vcpus=2, memory_mib=2048, disk_gib=20),
    "large": Spec(vcpus=8, memory_mib=16384, disk_gib=100),
}
STOPPED, STARTED_AGAIN, DELETED = 0.3, 0.5, 0.1
"""The shares of VMs that are stopped; of these, of those that are started again; and of those that are deleted."""
FINGERPRINT = "f" * 64
LEASE = 1


@dataclass(frozen=True)
class Append:
    """Events of one aggregate that are stored together."""

    ref: Ref
    events: Sequence[Event]
    context: Context


def project(number: int) -> str:
    return f"project-{number % PROJECTS:02}"


def node(number: int) -> str:
    return f"node-{number:03}"


def nodes(vms: int) -> int:
    """The number of nodes of a cloud with so many VMs."""
    return max(4, min(NODES, vms // 50))


def done(number: int, at: datetime = START) -> dict[str, Any]:
    """The fields of an event that ends its own operation. `number`: different for each."""
    return {"at": at, "operation": str(UUID(int=number, version=4)), "fingerprint": FINGERPRINT}


def cloud(vms: int) -> Iterator[Append]:
    """Everything but the VMs, each aggregate once."""
    operator = Context(actor="user:operator")
    for number in range(PROJECTS):
        created = ProjectCreated(**done(number), project=project(number), name=f"Project {number}")
        members = [
            ProjectRoleBound(**done(1000 + number), principal=f"user:user-{number:03}", role=Role.ADMIN),
            ProjectRoleBound(**done(2000 + number), principal=f"user:user-{number + 50:03}", role=Role.MEMBER),
        ]
        yield Append(Ref(project(number), "project", project(number)), [created, *members], operator)
    for number in range(USERS):
        user = f"user-{number:03}"
        created_user = UserCreated(**done(3000 + number), user=user, name=f"User {number}")
        yield Append(Ref(subjects.SYSTEM, "user", user), [created_user], operator)
    for number in range(TAGS):
        tag = TagCreated(**done(4000 + number), tag=f"tag-{number}", name=f"Tag {number}")
        yield Append(Ref(subjects.SYSTEM, "tag", f"tag-{number}"), [tag], operator)
    for number, (name, spec) in enumerate(SIZES.items()):
        flavor = FlavorCreated(**done(5000 + number), flavor=name, name=name.title(), size=spec)
        yield Append(Ref(subjects.SYSTEM, "flavor", name), [flavor], operator)
    for number, image in enumerate(IMAGES):
        asked = done(6000 + number)
        registered = ImageRegistered(
            **asked, deadline=START + timedelta(hours=1), image=image, name=image, source=f"/images/{image}.qcow2"
        )
        verified = ImageVerified(
            at=START,
            operation=asked["operation"],
            sha256=f"{number:064x}",
            format="qcow2",
            size_bytes=2**28,
            virtual_size_bytes=2**31,
        )
        yield Append(Ref(subjects.SYSTEM, "image", image), [registered, verified], operator)
    for number in range(nodes(vms)):
        yield Append(Ref(subjects.SYSTEM, "node", node(number)), joined(number), Context(actor=f"node:{node(number)}"))


def joined(number: int) -> list[Event]:
    """A node with room for 2,000 VMs."""
    info = RegisteredInfo(
        node=node(number),
        region=f"region-{number % 4}",
        vcpus=1024,
        memory_mib=2**25,
        disk_gib=2**18,
        virt_type="kvm",
        seed_url="http://192.168.122.1:8775/",
        version="1",
        features=tuple(sorted(VM_FEATURES)),
    )
    boot = str(UUID(int=number, version=4))
    leased = NodeLeased(at=START, lease=LEASE, boot=boot, identity=boot, host=f"host-{number}", pid=4711)
    return [NodeRegistered(at=START, info=info), leased]


class Life:
    """The life of one VM, in steps. Each step is one append, or None if this VM does not have it.

    `every`: each so-many-th VM is of the first project, which is large then; 0: all projects are of one size.
    """

    def __init__(self, number: int, vms: int, every: int = 0) -> None:
        chance = random.Random(number)
        self.id = str(UUID(int=chance.getrandbits(128), version=4))
        place = chance.randrange(PROJECTS)
        self.ref = Ref(project(0 if every and number % every == 0 else place), "vm", self.id)
        self._number, self._chance = number, chance
        self._at = START + timedelta(seconds=number)
        self._flavor = chance.choice(list(SIZES))
        self._image = chance.choice(IMAGES)
        self.node = node(number % nodes(vms))
        self._boots, self._sequence = 1, 0
        self._stopped = chance.random() < STOPPED
        self._again = self._stopped and chance.random() < STARTED_AGAIN
        self.deleted = chance.random() < DELETED
        self._operation = self._new_id()

    def _new_id(self) -> str:
        return str(UUID(int=self._chance.getrandbits(128), version=4))

    def _later(self, seconds: float) -> datetime:
        self._at += timedelta(seconds=seconds)
        return self._at

    def _caller(self) -> Context:
        """The context of a command by a user, which begins the operation."""
        user = f"user:user-{self._chance.randrange(USERS):03}"
        return Context(actor=user, request=self._new_id(), operation=self._operation)

    def _by_node(self) -> Context:
        """The context of a report."""
        return Context(actor=f"node:{self.node}", causation=f"report.{self.id}:{self._sequence}")

    def _asked(self, hours: float = 1.0) -> dict[str, Any]:
        at = self._later(60)
        accepted = {"at": at, "operation": self._operation, "fingerprint": FINGERPRINT}
        return {**accepted, "deadline": at + timedelta(hours=hours)}

    def _observed(self, seconds: float, operation: str | None) -> dict[str, Any]:
        self._sequence += 1
        return {
            "at": self._later(seconds),
            "operation": operation,
            "node": self.node,
            "lease": LEASE,
            "sequence": self._sequence,
        }

    def requested(self) -> Append:
        place = self.ref.project
        requested = VmRequested(
            **self._asked(),
            vm=self.id,
            project=place,
            name=f"web-{self._number}",
            image=self._image,
            spec=SIZES[self._flavor],
            flavor=self._flavor,
            tags=(f"tag-{self._number % TAGS}",) if self._number % 3 == 0 else (),
            labels={"tier": self._chance.choice(("web", "db", "cache")), "team": f"team-{self._number % 50}"},
            ssh_keys=(f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{self._number:043}",),
        )
        checked = (("project", place, place), ("image", subjects.SYSTEM, self._image))
        checks = [ReferenceChecked(kind=kind, project=of, id=id_, position=1) for kind, of, id_ in checked]
        return Append(self.ref, [requested, *checks], self._caller())

    def scheduled(self) -> tuple[VmScheduled, CapacityReserved]:
        """The event of the VM, and that of its node."""
        at = self._later(0.01)
        scheduled = VmScheduled(
            at=at,
            operation=self._operation,
            node=self.node,
            epoch=1,
            deadline=at + timedelta(hours=1),
            considered=(Considered(node=self.node),),
            mac=mac.formatted(self._number % mac.ADDRESSES),
        )
        return scheduled, CapacityReserved(at=at, vm=self.id, resources=SIZES[self._flavor].resources())

    def preparing(self) -> Append:
        preparing = VmPreparing(**self._observed(0.1, self._operation), step="getting the image")
        return Append(self.ref, [preparing], self._by_node())

    def started(self) -> Append:
        address = f"10.{self._number >> 16 & 255}.{self._number >> 8 & 255}.{self._number & 255}"
        started = VmStarted(
            **self._observed(2, self._operation),
            boots=self._boots,
            size=SIZES[self._flavor].resources(),
            host_boot="b" * 32,
            addresses=(address,),
            address_sources=(AddressSource(address=address, source="lease"),),
        )
        return Append(self.ref, [started], self._by_node())

    def ready(self) -> Append:
        key = HostKey(
            type="ssh-ed25519",
            key=f"AAAAC3NzaC1lZDI1NTE5AAAAI{self._number:043}",
            fingerprint=f"SHA256:{self._number:043}",
        )
        ready = VmGuestReady(
            at=self._later(20), hostname=f"web-{self._number}", host_keys=(key,), boots=self._boots, boot=self._new_id()
        )
        return Append(self.ref, [ready], Context(actor=f"guest:{self.id}"))

    def stop(self) -> Append | None:
        if not self._stopped:
            return None
        self._operation = self._new_id()
        asked = self._asked()
        stop = VmStopRequested(**asked, force_after=asked["at"] + timedelta(seconds=90))
        return Append(self.ref, [stop], self._caller())

    def stopped(self) -> Append | None:
        if not self._stopped:
            return None
        stopped = VmStopped(**self._observed(5, self._operation), cause="requested")
        return Append(self.ref, [stopped], self._by_node())

    def start(self) -> Append | None:
        if not self._again:
            return None
        self._operation = self._new_id()
        self._boots += 1
        return Append(self.ref, [VmStartRequested(**self._asked())], self._caller())

    def started_again(self) -> Append | None:
        return self.started() if self._again else None

    def ready_again(self) -> Append | None:
        return self.ready() if self._again else None

    def delete(self) -> Append | None:
        if not self.deleted:
            return None
        self._operation = self._new_id()
        return Append(self.ref, [VmDeletionRequested(**self._asked())], self._caller())

    def gone(self) -> Append | None:
        if not self.deleted:
            return None
        deleted = VmDeleted(at=self._later(3), operation=self._operation, node=self.node)
        return Append(self.ref, [deleted], self._by_node())

    def released(self) -> CapacityReleased:
        return CapacityReleased(at=self._later(0.01), vm=self.id)


AFTER_PLACEMENT = (
    Life.preparing,
    Life.started,
    Life.ready,
    Life.stop,
    Life.stopped,
    Life.start,
    Life.started_again,
    Life.ready_again,
    Life.delete,
    Life.gone,
)
"""The steps of a life after it has got a node, in order."""
