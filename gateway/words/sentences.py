"""The words for each type of event: what happened, with the values of the event that a reader wants to see first.

A type has templates, the most telling one first. `sentence` takes the first one whose values the event has; the last
one needs none. A value is that of a field of the event, or of a field in a field (`spec.vcpus`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.words.fields import NAMES, empty, value

Data = Mapping[str, Any]
Templates = tuple[str, ...]

_HOLE = re.compile(r"\{([a-z_.]+)\}")

#: Why a VM went off, by `VmStopped.cause`.
STOPS: Mapping[str, str] = {
    "requested": "VM stopped as requested",
    "guest": "The guest powered itself off",
    "crashed": "The guest crashed",
    "watchdog": "The watchdog powered the guest off",
    "unknown": "VM went off; the reason is not known",
}
#: The fields of `VmChanged` that it may have.
CHANGES = ("name", "description", "labels", "tags", "protected", "restart_policy", "watchdog")
FORCED = "VM powered off without a shutdown"
#: What the node does while it prepares a VM, by the step in its report.
STEPS: Mapping[str, str] = {
    "image": "it makes the disk from the image",
    "domain": "it defines the domain",
    "start": "it starts the domain",
    "stop": "it stops the domain",
    "pause": "it pauses the domain",
    "resume": "it resumes the domain",
    "suspend": "it saves the memory of the domain",
    "remove": "it removes what is left of the VM",
}

VM: Mapping[str, Templates] = {
    "VmRequested": ("VM requested, from image {image}", "VM requested"),
    "VmUnschedulable": ("No node has room for the VM now; it waits",),
    "VmScheduled": ("VM placed on node {node}", "VM placed on a node"),
    "VmPreparing": ("Node {node} prepares the VM", "The node prepares the VM"),
    "VmStarted": ("VM started on node {node}", "VM started"),
    "VmStopped": ("VM stopped",),
    "VmPaused": ("VM paused",),
    "VmResumed": ("VM resumed",),
    "VmSuspended": ("VM suspended, its memory is saved",),
    "VmGuestReady": ("The guest is ready, as {hostname}", "The guest is ready"),
    "VmGuestRebooted": ("The guest rebooted by itself",),
    "VmAddressesChanged": ("The guest has the addresses {addresses}", "The guest has no address"),
    "VmFailed": ("VM failed: {detail}", "VM failed"),
    "VmLost": ("Node {node} is lost, and the VM with it", "The node is lost, and the VM with it"),
    "VmOperationTimedOut": ("The deadline of the operation {verb} passed", "The deadline of the operation passed"),
    "VmDeleted": ("VM deleted from node {node}", "VM deleted"),
    "VmCleared": ("Node {node} came back and removed the VM", "The node came back and removed the VM"),
    "VmConsoleOpened": ("Console opened ({console})", "Console opened"),
    "VmConsoleClosed": ("Console closed ({console}): {why}", "Console closed ({console})", "Console closed"),
    "VmStartRequested": ("Start requested",),
    "VmStopRequested": ("Stop requested",),
    "VmRestartRequested": ("Restart requested",),
    "VmPauseRequested": ("Pause requested",),
    "VmResumeRequested": ("Resume requested",),
    "VmSuspendRequested": ("Suspend requested",),
    "VmRebuildRequested": ("Rebuild requested, from image {image}", "Rebuild requested"),
    "VmRescueRequested": ("Rescue requested, from image {image}", "Rescue requested"),
    "VmUnrescueRequested": ("End of the rescue requested",),
    "VmRetryRequested": ("Another try requested: {again}", "Another try requested"),
    "VmDeletionRequested": ("Deletion requested",),
    "VmAbandoned": ("The operation {verb} was given up", "The pending operation was given up"),
    "VmForgotten": ("VM given up with its lost node {node}: {reason}", "VM given up with its lost node"),
    "VmRestartScheduled": ("Automatic restart number {attempt} is due at {due}", "An automatic restart is due"),
    "VmRestartedByPolicy": ("Automatic restart number {attempt}", "Automatic restart"),
    "VmResized": (
        "VM resized to {spec.vcpus} vCPUs, {spec.memory_mib} MiB of memory, {spec.disk_gib} GiB of disk",
        "VM resized",
    ),
    "VmChanged": ("VM changed",),
    "VmTagged": ("VM tagged {tags}", "All tags of the VM removed"),
}
OTHERS: Mapping[str, Templates] = {
    "ImageRegistered": ("Image registered, from {source}", "Image registered"),
    "ImageProgressed": ("Image is being checked: {bytes_done} of {bytes_total} bytes", "Image is being checked"),
    "ImageVerified": ("Image verified ({format})", "Image verified"),
    "ImageRejected": ("Image rejected: {detail}", "Image rejected"),
    "NodeRegistered": ("Node registered, with version {info.version}", "Node registered"),
    "NodeLeased": ("A daemon on host {host} took over the node", "A daemon took over the node"),
    "NodeLeaseReturned": ("The daemon left the node",),
    "SeedUrlSet": ("Seed URL set to {seed_url}", "Seed URL set"),
    "CapacityReserved": ("Room promised to VM {vm}", "Room promised to a VM"),
    "CapacityReleased": ("Room of VM {vm} freed", "Room of a VM freed"),
    "NodeLost": ("Node lost after {silent_seconds} s of silence", "Node lost"),
    "NodeRecovered": ("Node is back",),
    "NodeCordoned": ("Node cordoned: it gets no new VMs",),
    "NodeUncordoned": ("Node uncordoned",),
    "NodeRetired": ("Node retired",),
    "ProjectRenamed": ("Project renamed to {name}", "Project renamed"),
    "ProjectTagged": ("Project tagged {tags}", "All tags of the project removed"),
    "ProjectDescribed": ("Project described: {description}", "Description of the project removed"),
    "ProjectSshKeysChanged": ("SSH keys of the project changed",),
    "ProjectRoleBound": ("Role {role} given to {principal}", "Role given"),
    "ProjectRoleUnbound": ("Role of {principal} taken away", "Role taken away"),
    "FlavorChanged": ("Flavor changed",),
    "FlavorDeprecated": ("Flavor deprecated",),
    "FlavorRestored": ("Flavor restored",),
    "TagRenamed": ("Tag renamed to {name}", "Tag renamed"),
    "TokenIssued": ("Token issued to {principal}", "Token issued"),
    "TokenRevoked": ("Token revoked",),
    "JoinTokenIssued": ("Join token issued",),
    "JoinTokenReused": ("Join token used again by another host",),
    "NodeJoined": ("Node joined, with key {key_fingerprint}", "Node joined"),
    "EnrollmentRevoked": ("Node's key revoked",),
    "EnrollmentWithdrawn": ("Node's key withdrawn: the node is retired",),
    "OperationKeyed": ("Operation accepted with a key of the caller",),
    "ReferenceChecked": ("Reference to {kind} {id} checked", "Reference checked"),
    "BusMaintained": ("Maintenance of the bus: {call} {target}", "Maintenance of the bus"),
}


def _named() -> Iterator[tuple[str, Templates]]:
    """The kinds that are created, deleted in two steps, and given roles, all in the same way."""
    named = {
        "Project": "Project",
        "Flavor": "Flavor",
        "Tag": "Tag",
        "User": "User",
        "ServiceAccount": "Service account",
    }
    for prefix, noun in {**named, "Image": "Image"}.items():
        if prefix != "Image":
            yield f"{prefix}Created", (f"{noun} created",)
        yield f"{prefix}Deleted", (f"{noun} deleted",)
        yield f"{prefix}DeletionBegun", (f"Deletion of the {noun.lower()} begun",)
        yield (
            f"{prefix}DeletionGivenUp",
            (f"Deletion of the {noun.lower()} given up: {{detail}}", f"{noun} not deleted"),
        )
    for prefix in ("User", "ServiceAccount"):
        noun = named[prefix]
        yield f"{prefix}Changed", (f"{noun} renamed to {{name}}", f"{noun} changed")
        yield f"{prefix}Disabled", (f"{noun} disabled",)
        yield f"{prefix}Enabled", (f"{noun} enabled",)
        yield f"{prefix}Bound", (f"Role {{role}} given to the {noun.lower()}", "Role given")
        yield f"{prefix}Unbound", (f"Role {{role}} taken from the {noun.lower()}", "Role taken away")


#: The templates of each type, by its name without prefix.
WORDS: Mapping[str, Templates] = {**VM, **OTHERS, **dict(_named())}


def _stopped(data: Data) -> str | None:
    return FORCED if data.get("forced") is True else STOPS.get(str(data.get("cause")))


def _preparing(data: Data) -> str | None:
    step = STEPS.get(str(data.get("step")))
    node = data.get("node")
    return f"{f'Node {value(node)}' if node else 'The node'} prepares the VM: {step}" if step else None


def _changed(data: Data) -> str | None:
    names = [NAMES.get(field, field.replace("_", " ")) for field in CHANGES if data.get(field) is not None]
    return f"VM changed: {', '.join(names)}" if names else None


#: The types whose words depend on more than which values there are. None: the templates say it.
SPECIAL: Mapping[str, Callable[[Data], str | None]] = {
    "VmStopped": _stopped,
    "VmPreparing": _preparing,
    "VmChanged": _changed,
}


def sentence(name: str, data: object) -> str | None:
    """The words for an event of this name (`VmStarted`) with this data; None for a type without words.

    Values are those of callers, nodes and guests: they are plain text, and cut.
    """
    templates = WORDS.get(name)
    if templates is None:
        return None
    fields: Data = data if isinstance(data, Mapping) else {}
    special = SPECIAL.get(name)
    if special is not None and (said := special(fields)) is not None:
        return said
    for template in templates:
        if not any(empty(_in(fields, hole)) for hole in holes(template)):
            return _HOLE.sub(lambda hole: value(_in(fields, hole[1])), template)
    return templates[-1]


def holes(template: str) -> list[str]:
    """The values that a template needs."""
    return _HOLE.findall(template)


def _in(data: Data, path: str) -> Any:
    found: Any = data
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
