"""The log, the read models, the wanted documents, the nodes' books and the hypervisors: do they all say the same?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from domain.base import Resources
from domain.contract import Desired, Power, Wanted
from domain.vm import Phase, Vm
from handlers.world.world import World
from node_daemon.hypervisor.hypervisor import Have

#: What there may be of a VM on its node in each phase that lasts.
POWERS: dict[Phase, frozenset[Power]] = {
    Phase.RUNNING: frozenset({Power.ON}),
    Phase.STOPPED: frozenset({Power.OFF, Power.ABSENT}),
    Phase.PAUSED: frozenset({Power.PAUSED}),
    Phase.SUSPENDED: frozenset({Power.SUSPENDED}),
    Phase.FAILED: frozenset({Power.OFF, Power.ABSENT, Power.PAUSED, Power.SUSPENDED}),
}


@dataclass
class Seen:
    """One look at everything. `domains` and `disks` are what there is on each node."""

    world: World
    shown: Mapping[str, Mapping[str, object]]
    wanted: Mapping[tuple[str, str], Wanted]
    domains: Mapping[str, Mapping[str, Have]]
    disks: Mapping[str, frozenset[str]]
    faults: list[str] = field(default_factory=list)


def differences(seen: Seen) -> list[str]:
    """Everything that two of them disagree about."""
    living = {vm.id: vm for vm in seen.world.vms()}
    found = list(seen.faults)
    for vm in living.values():
        found += [f"VM {vm.id} ({vm.phase}) on {vm.node}: {what}" for what in of(vm, seen)]
    found += [f"VM {id_} is shown as {row['phase']}, and gone" for id_, row in seen.shown.items() if id_ not in living]
    for node, domains in seen.domains.items():
        mine = {vm.id for vm in living.values() if vm.node == node}
        found += [
            f"domain {id_} on {node} is nobody's ({have.power})" for id_, have in domains.items() if id_ not in mine
        ]
        found += [f"disk {id_} on {node} is nobody's" for id_ in seen.disks[node] - mine]
    for (node, id_), document in seen.wanted.items():
        if (id_ not in living or living[id_].node != node) and document.desired is not Desired.ABSENT:
            found.append(f"a document on {node} wants VM {id_} {document.desired}, and it is gone")
    return found + list(books(seen.world))


def of(vm: Vm, seen: Seen) -> Iterator[str]:
    """What does not fit the state of a living VM."""
    if vm.pending is not None:
        yield f"{vm.pending.verb} is still pending"
    row = seen.shown.get(vm.id)
    if row is None:
        yield "it is not shown"
    elif (row["phase"], row["node"], row["name"]) != (vm.phase, vm.node, vm.name):
        yield f"it is shown as {row['phase']} on {row['node']}"
    if vm.node is None:
        if vm.phase not in (Phase.UNSCHEDULABLE, Phase.FAILED):
            yield "it has no node"
        return
    document = seen.wanted.get((vm.node, vm.id))
    if document is None:
        yield "there is no document for it"
    elif (document.desired, document.boots, document.epoch) != (vm.desired, vm.boots, vm.epoch):
        yield f"its document wants {document.desired} for boot {document.boots}, not {vm.desired} for {vm.boots}"
    have = seen.domains[vm.node].get(vm.id)
    power = have.power if have else Power.ABSENT
    if power not in POWERS.get(vm.phase, frozenset()):
        yield f"its domain is {power}"
    if have and have.power is Power.ON and vm.desired is Desired.ON and have.boots < vm.boots:
        yield f"its domain runs for boot {have.boots}, not {vm.boots}"
    if have and not have.persistent:
        yield "its domain would be forgotten once off"
    if have and vm.id not in seen.disks[vm.node]:
        yield "its disk is missing"


def books(world: World) -> Iterator[str]:
    """Every VM on a node is promised its size there, and nobody else anything."""
    for node in world.nodes():
        owed = {vm.id: vm.spec.resources() for vm in world.vms() if vm.node == node.id}
        promised: Mapping[str, Resources] = node.reservations
        for id_ in owed.keys() | promised.keys():
            if owed.get(id_) != promised.get(id_):
                yield f"node {node.id} promises {promised.get(id_)} to VM {id_}, which needs {owed.get(id_)}"
