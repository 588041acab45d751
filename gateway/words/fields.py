"""What changed about a resource, in sentences: a field of the API, and its values before and after.

`of_fields.py` has what is said of fields whose general sentence says little.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.words.of_fields import SENTENCES
from runtime.text.plain import plain

#: Characters of a value in a sentence, and of a whole sentence that is made of several values.
LONGEST, LONGEST_SENTENCE = 200, 400
#: Fields that change with each event, or that say nothing about the resource itself.
SILENT = frozenset({"version", "position", "updated_at"})
#: The words for fields whose names are not words.
NAMES: Mapping[str, str] = {
    "id": "id",
    "mac": "MAC address",
    "vcpus": "vCPUs",
    "vms": "VMs",
    "ssh_keys": "SSH keys",
    "memory_mib": "memory (MiB)",
    "disk_gib": "disk (GiB)",
    "has_user_data": "user-data",
    "running_spec": "size of its domain",
    "pending": "pending operation",
    "considered": "nodes that were considered",
    "reserved": "promised resources",
    "seed_url": "seed URL",
    "virt_type": "type",
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
    own = SENTENCES.get(field)
    said = own(before, after) if own is not None else None
    if said is not None:
        return short(said, LONGEST_SENTENCE)
    return _general(field, before, after)


def _general(field: str, before: Any, after: Any) -> str:
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
    return short(_text(given), LONGEST)


def short(text: str, most: int) -> str:
    """Plain text of at most so many characters."""
    found = plain(text, keep="")
    return found if len(found) <= most else f"{found[: most - 1]}…"


def _text(given: Any) -> str:
    if isinstance(given, Mapping):
        return ", ".join(f"{name}={_text(each)}" for name, each in given.items()) or "none"
    if isinstance(given, Sequence) and not isinstance(given, str):
        return ", ".join(map(_text, given)) or "none"
    if isinstance(given, bool):
        return "yes" if given else "no"
    return "none" if given is None else str(given)
