"""Every NATS name of the platform. No other file spells one."""

import re
from functools import lru_cache
from typing import NamedTuple

PREFIX = "nebula"

EVENTS = "NEBULA_EVENTS"
WANTED = "NEBULA_WANTED"
REPORTS = "NEBULA_REPORTS"
PARKED = "NEBULA_PARKED"
CHECKPOINTS = "NEBULA_CHECKPOINTS"
LEASES = "NEBULA_LEASES"
"""Which daemon was given the lease of each node last: for daemons that start while handlers are away."""
MANAGERS = "NEBULA_MANAGERS"
"""Which handlers process runs the managers."""
HEALTH = "NEBULA_HEALTH"
"""Holds one document, which is replaced to see whether the servers can store."""
VAULT = "NEBULA_VAULT"
"""The vault's stream: per-VM keys, wrapped by the master key."""
KEYS = "NEBULA_KEYS"
"""The key-value bucket that held the vault's keys before."""

SYSTEM = "system"
"""The project token of what no project owns: nodes, images, tags."""

OPERATION = "operation"
"""The kind of the keys that callers used: each says which operation it stands for."""


#: How ids are written. `domain/patterns.py` says it, which this room may not import; a test compares the two.
SLUG = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def token(value: str) -> str:
    """The value, when it can stand between two dots of a subject; ValueError otherwise."""
    if not TOKEN.fullmatch(value):
        raise ValueError(f"not a subject token: {value!r} (letters, digits, - and _ only)")
    return value


@lru_cache(maxsize=4096)
def event(project: str, kind: str, id_: str) -> str:
    """The subject that holds the events of one aggregate."""
    return f"{PREFIX}.events.{token(project)}.{token(kind)}.{token(id_)}"


def events(project: str | None = None, kind: str | None = None, id_: str | None = None) -> str:
    """A filter on events; what is None stands for all."""
    parts = [token(part) if part is not None else "*" for part in (project, kind, id_)]
    return f"{PREFIX}.events." + ".".join(parts)


class EventSubject(NamedTuple):
    project: str
    kind: str
    id: str


def parse_event(subject: str) -> EventSubject:
    """The parts of an event's subject; ValueError for any other subject."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[:2] != [PREFIX, "events"]:
        raise ValueError(f"not the subject of an event: {subject}")
    return EventSubject(*parts[2:])


def command(project: str, kind: str, verb: str) -> str:
    """The subject on which a command is asked (request/reply; not stored, since its event is the record)."""
    return f"{PREFIX}.commands.{token(project)}.{token(kind)}.{token(verb)}"


COMMANDS = f"{PREFIX}.commands.*.*.*"


def wanted(node: str, kind: str, id_: str) -> str:
    """Where the document stands that tells a node what to want of one thing. `*` for the node stands for all."""
    of = node if node == "*" else token(node)
    return f"{PREFIX}.nodes.{of}.wanted.{token(kind)}.{token(id_)}"


def wanted_of(node: str | None = None) -> str:
    return f"{PREFIX}.nodes.{token(node) if node is not None else '*'}.wanted.*.*"


def report(node: str, kind: str, id_: str) -> str:
    """Where a node says what it sees of one thing."""
    return f"{PREFIX}.nodes.{token(node)}.reports.{token(kind)}.{token(id_)}"


def reports_of(node: str) -> str:
    return f"{PREFIX}.nodes.{token(node)}.reports.*.*"


REPORTS_OF_ALL = f"{PREFIX}.nodes.*.reports.*.*"

KEYED_BEFORE = (f"{PREFIX}.nodes.*.wanted.*", f"{PREFIX}.nodes.*.reports.*")
"""Where an earlier version kept documents and reports, by VM alone."""


class NodeSubject(NamedTuple):
    node: str
    kind: str
    id: str


def parse_wanted(subject: str) -> NodeSubject:
    """What a wanted document is about; ValueError for any other subject."""
    return _of_node(subject, "wanted")


def parse_report(subject: str) -> NodeSubject:
    """Who reports, and about what; ValueError for any other subject."""
    return _of_node(subject, "reports")


def _of_node(subject: str, what: str) -> NodeSubject:
    parts = subject.split(".")
    if len(parts) != 6 or parts[:2] != [PREFIX, "nodes"] or parts[3] != what:
        raise ValueError(f"not a subject of {what}: {subject}")
    return NodeSubject(parts[2], parts[4], parts[5])


def node_of(subject: str) -> str:
    """The node that a subject belongs to; ValueError for any other subject."""
    parts = subject.split(".")
    if len(parts) < 4 or parts[:2] != [PREFIX, "nodes"]:
        raise ValueError(f"not a subject of a node: {subject}")
    return parts[2]


def register(node: str) -> str:
    """On which a node says what it is (request/reply; what is new becomes an event)."""
    return f"{PREFIX}.nodes.{token(node)}.register"


REGISTER_OF_ALL = f"{PREFIX}.nodes.*.register"


def leave(node: str) -> str:
    """On which a daemon that ends gives back the lease of its node (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.leave"


LEAVE_OF_ALL = f"{PREFIX}.nodes.*.leave"


def lease(node: str) -> str:
    """Where it stands which daemon was given the lease of a node last."""
    return f"{PREFIX}.nodes.{token(node)}.lease"


LEASES_OF_ALL = f"{PREFIX}.nodes.*.lease"


def heartbeat(node: str) -> str:
    """Where a node says that it lives."""
    return f"{PREFIX}.nodes.{token(node)}.heartbeat"


HEARTBEATS = f"{PREFIX}.nodes.*.heartbeat"


def ask(node: str, verb: str) -> str:
    """What a node answers itself, now (request/reply; it changes nothing that the log tells)."""
    return f"{PREFIX}.nodes.{token(node)}.asks.{token(verb)}"


def asks_of(node: str | None = None) -> str:
    return f"{PREFIX}.nodes.{token(node) if node is not None else '*'}.asks.*"


def session(node: str, id_: str, hearer: str) -> str:
    """Where one end (`node` or `gateway`) of a connection to a guest hears the other. The id is a secret of the two."""
    return f"{PREFIX}.nodes.{token(node)}.sessions.{token(id_)}.{token(hearer)}"


def cached_images(node: str) -> str:
    """On which a node asks which of its images are in the catalogue no more (request/reply; not stored)."""
    return f"{PREFIX}.nodes.{token(node)}.images"


CACHED_IMAGES_OF_ALL = f"{PREFIX}.nodes.*.images"


def image_holder(node: str) -> str:
    """On which a node asks who keeps an image (request/reply): all handlers hear it."""
    return f"{PREFIX}.nodes.{token(node)}.images.holder"


IMAGE_HOLDER_OF_ALL = f"{PREFIX}.nodes.*.images.holder"


def image_piece(node: str, holder: str) -> str:
    """On which a node asks one of those who keep an image for bytes of it (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.images.pieces.{token(holder)}"


def image_pieces_of_all(holder: str) -> str:
    return f"{PREFIX}.nodes.*.images.pieces.{token(holder)}"


def role_status(role: str, process: str) -> str:
    """On which a process says how it is. Not stored."""
    return f"{PREFIX}.roles.{token(role)}.{token(process)}.status"


STATUS_OF_ALL = f"{PREFIX}.roles.*.*.status"


def parked(source: str, key: str) -> str:
    """The record of one message that was put aside."""
    return f"{PREFIX}.parked.{token(source)}.{token(key)}"


def parked_of(source: str) -> str:
    """All records of a source."""
    return f"{PREFIX}.parked.{token(source)}.*"


def parked_before(source: str) -> str:
    """Where an earlier version put all messages of a source."""
    return f"{PREFIX}.parked.{token(source)}"


PARKED_OF_ALL = f"{PREFIX}.parked.*.*"
PARKED_EVER = f"{PREFIX}.parked.>"
"""All records, those of an earlier version as well."""

HEALTH_CHECK = f"{PREFIX}.health"

MANAGERS_LEASE = f"{PREFIX}.managers.lease"
"""Where it stands which handlers process runs the managers."""

GUEST_SEED = f"{PREFIX}.guests.seed"
"""On which guest-data asks what a guest is told (request/reply; the guest's secret stands in the request)."""

GUEST_READY = f"{PREFIX}.guests.ready"
"""On which guest-data passes on that a guest is ready (request/reply)."""

GUEST_SEEDS_HELD = f"{PREFIX}.guests.held"
"""On which guest-data asks which of its copies count no more (request/reply)."""

CHECKPOINT = f"{PREFIX}.checkpoints"
"""What was signed of the log, in the order of signing."""


def vault_key(name: str) -> str:
    """Where the wrapped key of this name is stored."""
    return f"{PREFIX}.vault.{token(name)}"


VAULT_KEYS = f"{PREFIX}.vault.*"
