"""Sentences about single fields of resources, in terms of what the field means to people.

Each function gets the values before and after, which differ, as the API shows them. It returns None where the general
sentence ("`x` changed from A to B") says it well enough. Values of callers are made plain by `fields.sentence`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Say = Callable[[Any, Any], str | None]


def flag(true: str, false: str) -> Say:
    """A sentence for each value of a boolean."""
    return lambda _, after: true if after else false


def moment(became: str, ended: str | None = None) -> Say:
    """A time that is set, and perhaps cleared. `ended` is said when it is cleared."""

    def say(_: Any, after: Any) -> str | None:
        return f"{became} {after}" if after is not None else ended

    return say


def amount(name: str, unit: str) -> Say:
    return lambda before, after: f"{name} changed from {_number(before, unit)} to {_number(after, unit)}"


def count(one: str, many: str) -> Say:
    """A number that grows with each event of its sort, and may begin again."""

    def say(before: Any, after: Any) -> str:
        more = after - before
        if more < 0:
            return f"{many} are counted from the beginning: {after}"
        return f"{more} more {one if more == 1 else many}, {after} in all"

    return say


def size(name: str) -> Say:
    """An object of numbers: those that differ."""
    units = {"vcpus": ("vCPUs", ""), "memory_mib": ("memory", " MiB"), "disk_gib": ("disk", " GiB")}

    def say(before: Any, after: Any) -> str | None:
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            found = after if isinstance(after, Mapping) else before
            if not isinstance(found, Mapping):
                return None
            parts = ", ".join(f"{_number(found.get(key), unit)} {word}".strip() for key, (word, unit) in units.items())
            return f"{name}: {parts}" if isinstance(after, Mapping) else f"{name} ended: {parts}"
        parts = ", ".join(
            f"{word} from {_number(before.get(key), unit)} to {_number(after.get(key), unit)}"
            for key, (word, unit) in units.items()
            if before.get(key) != after.get(key)
        )
        return f"{name}: {parts}" if parts else None

    return say


def each(added: Callable[[Any], str], removed: Callable[[Any], str]) -> Say:
    """A list: a part of the sentence for each element that is new or gone."""

    def say(before: Any, after: Any) -> str | None:
        old, new = before or [], after or []
        if not isinstance(old, Sequence) or not isinstance(new, Sequence):
            return None
        parts = [*(added(one) for one in new if one not in old), *(removed(one) for one in old if one not in new)]
        return "; ".join(parts) or None

    return say


def labels(before: Any, after: Any) -> str | None:
    old, new = before or {}, after or {}
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return None
    parts = [f"label {key} is now {value}" for key, value in new.items() if key not in old]
    parts += [
        f"label {key} changed from {old[key]} to {value}" for key, value in new.items() if old.get(key, value) != value
    ]
    parts += [f"label {key} is no longer there" for key in old if key not in new]
    return "; ".join(parts) or None


def members(before: Any, after: Any) -> str | None:
    """Who has which role in a project. A principal may have several."""

    def said(one: Mapping[str, Any], verb: str) -> str:
        return f"{one.get('principal')} {verb} {one.get('role')}"

    return each(lambda one: said(one, "is now"), lambda one: said(one, "is no longer"))(before, after)


def node(before: Any, after: Any) -> str:
    if before is None:
        return f"it is on node {after} now"
    return f"it is no longer on node {before}" if after is None else f"it moved from node {before} to node {after}"


def pending(before: Any, after: Any) -> str | None:
    if isinstance(after, Mapping):
        return (
            f"{after.get('verb')} is under way since {after.get('since')}; it has to end until {after.get('deadline')}"
        )
    return f"{before.get('verb')} is not under way any more" if isinstance(before, Mapping) else None


def failure(before: Any, after: Any) -> str | None:
    if isinstance(after, Mapping):
        return f"it failed: {after.get('detail')} ({after.get('code')})"
    if isinstance(after, str):
        return f"it failed: {after}"
    return "its failure is over" if before is not None else None


def considered(_: Any, after: Any) -> str:
    if not after:
        return "no node is considered for it any more"
    parts = []
    for one in after:
        more = f", and {one['more']} more nodes" if one.get("more") else ""
        parts.append(f"{one.get('node')}: {one.get('reason') or 'fits'}{more}")
    return f"nodes were considered for it ({'; '.join(parts)})"


def daemon(before: Any, after: Any) -> str | None:
    if isinstance(after, Mapping):
        return f"the daemon on host {after.get('host')}, process {after.get('pid')}, works for it"
    return f"the daemon on host {before.get('host')} does not work for it any more" if before else None


def desired(_: Any, after: Any) -> str:
    return f"it should be {after}"


def _number(value: Any, unit: str) -> str:
    return "none" if value is None else f"{value}{unit}"


SENTENCES: Mapping[str, Say] = {
    # sizes
    "memory_mib": amount("memory", " MiB"),
    "disk_gib": amount("disk", " GiB"),
    "running_spec": size("its domain runs with"),
    "capacity": size("capacity"),
    "reserved": size("promised"),
    "pending_resize": flag("its next start changes its size", "its domain has its size"),
    # what people said about it
    "labels": labels,
    "members": members,
    "tags": each(lambda tag: f"tag {tag} added", lambda tag: f"tag {tag} removed"),
    "roles": each(lambda role: f"it is {role} now", lambda role: f"it is not {role} any more"),
    "ssh_keys": each(lambda key: f"SSH key added: {key}", lambda key: f"SSH key removed: {key}"),
    "protected": flag("it is protected from deletion", "it is not protected from deletion any more"),
    "deprecated": flag("it is deprecated: nothing new should use it", "it is not deprecated any more"),
    "disabled": flag("it is disabled: it may do nothing", "it is enabled again"),
    "read_only": flag("it allows reads only", "it allows changes"),
    "has_user_data": flag("it has user-data now", "it has no user-data any more"),
    "cordoned": flag("it takes no new VMs", "it takes new VMs again"),
    "rescue": lambda before, after: (
        f"it boots from image {after} to be rescued"
        if after
        else f"it boots from its own disk again, not from {before}"
    ),
    # what became of it
    "desired": desired,
    "node": node,
    "pending": pending,
    "failure": failure,
    "considered": considered,
    "daemon": daemon,
    "ready": flag("its guest is ready", "its guest is not ready"),
    "lost": flag("it counts as lost", "it is back"),
    "boots": count("boot was ordered", "boots were ordered"),
    "guest_boots": count("boot of its guest", "boots of its guest"),
    "rebuilds": count("rebuild", "rebuilds"),
    "restarts": count("automatic restart", "automatic restarts"),
    "addresses": each(lambda one: f"address {one} added", lambda one: f"address {one} is gone"),
    "address_sources": each(
        lambda one: f"address {one.get('address')} is known by {one.get('source')}",
        lambda one: f"address {one.get('address')} is not known by {one.get('source')} any more",
    ),
    "host_keys": each(
        lambda one: f"SSH host key {one.get('type')} {one.get('fingerprint')} is known",
        lambda one: f"SSH host key {one.get('type')} {one.get('fingerprint')} is gone",
    ),
    "warnings": each(
        lambda one: f"warning: {one.get('detail')}", lambda one: f"no warning any more: {one.get('detail')}"
    ),
    "waiting": each(
        lambda one: f"a daemon on host {one.get('host')} waits to work for it",
        lambda one: f"the daemon on host {one.get('host')} does not wait any more",
    ),
    # times
    "restart_at": moment("it is restarted at", "no restart is planned"),
    "started_at": moment("it started at", "it does not run"),
    "ready_at": moment("its guest was ready at", "its guest is not ready in this boot"),
    "first_ready_at": moment("its guest was first ready at", "its disk is new: no guest was ready on it"),
    "retired_at": moment("it was retired at"),
    "joined_at": moment("a host joined at"),
    "revoked_at": moment("it was revoked at", "it is not revoked any more"),
    "token_expires_at": moment("a host may join with its token until", "it has no token any more"),
    "expires_at": moment("it ends at"),
    "registered_at": moment("it registered at"),
}
