"""What changed about a resource, in sentences: a field of the API, and its values before and after."""

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.text.plain import plain

#: Characters of a value in a sentence.
LONGEST = 200
#: Fields that change with each event, or that say nothing about the resource itself.
SILENT = frozenset({"version", "position", "updated_at"})
#: The words for fields whose names are not words.
NAMES: Mapping[str, str] = {
    "id": "id",
    "mac": "MAC address",
    "vcpus": "vCPUs",
    "vms": "VMs",
    "memory_mib": "memory (MiB)",
    "disk_gib": "disk (GiB)",
    "ssh_keys": "SSH keys",
    "has_user_data": "user-data",
    "seed_url": "seed URL",
    "virt_type": "type",
    "running_spec": "size of its domain",
    "pending": "pending operation",
    "considered": "nodes that were considered",
    "reserved": "promised resources",
    "sha256": "SHA-256",
    "sha512": "SHA-512",
}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The fields that differ, in the order of the API, with both values."""
    names = [*before, *(name for name in after if name not in before)]
    pairs = ((name, before.get(name), after.get(name)) for name in names if name not in SILENT)
    return [(name, old, new) for name, old, new in pairs if old != new]


def sentence(field: str, before: Any, after: Any) -> str:
    """What happened to a field. Values are those of callers: they are plain text, and cut."""
    name = NAMES.get(field, field.replace("_", " "))
    if isinstance(before, list) and isinstance(after, list):
        added = [each for each in after if each not in before]
        removed = [each for each in before if each not in after]
        parts = [f"added {value(added)}"] if added else []
        parts += [f"removed {value(removed)}"] if removed else []
        return f"{name}: {', '.join(parts) or 'another order'}"
    if empty(before):
        return f"{name} is now {value(after)}"
    if empty(after):
        return f"{name} is no longer {value(before)}"
    return f"{name} changed from {value(before)} to {value(after)}"


def empty(given: Any) -> bool:
    return given is None or given in ("", [], {})


def value(given: Any) -> str:
    """A value as text."""
    text = plain(_text(given), keep="")
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _text(given: Any) -> str:
    if isinstance(given, Mapping):
        return ", ".join(f"{name}={_text(each)}" for name, each in given.items()) or "none"
    if isinstance(given, Sequence) and not isinstance(given, str):
        return ", ".join(map(_text, given)) or "none"
    if isinstance(given, bool):
        return "yes" if given else "no"
    return "none" if given is None else str(given)
