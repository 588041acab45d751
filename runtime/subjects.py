"""All NATS names of the platform: streams and subjects. No other file spells one."""

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
"""The lease notes: the last lease of each node, for daemons that start while no handlers answer."""
MANAGERS = "NEBULA_MANAGERS"
"""The lease of the managers: the handlers process that runs them."""
HEALTH = "NEBULA_HEALTH"
"""One document, which is replaced to check whether the servers can store."""
VAULT = "NEBULA_VAULT"
"""The vault's stream: the keys of VMs, wrapped by the master key."""
KEYS = "NEBULA_KEYS"
"""The key-value bucket in which an earlier version stored the vault's keys."""

REFUSALS = "NEBULA_REFUSALS"
"""Refused calls, for auditors: the newest ones."""
TOKEN_USES = "NEBULA_TOKEN_USES"  # noqa: S105  (a name)
"""The last use of each token."""

SYSTEM = "system"
"""The project token of aggregates outside of projects: nodes, images, tags."""

OPERATION = "operation"
"""The kind of aggregates for idempotency keys of callers. Each names its operation."""


#: The patterns of ids. They repeat `domain/patterns.py`, which this room may not import; a test compares them.
SLUG = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
SHA256 = r"[0-9a-f]{64}"
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def token(value: str) -> str:
    """The value, if it can be a token of a subject. Raises ValueError."""
    if not TOKEN.fullmatch(value):
        raise ValueError(f"not a subject token: {value!r} (letters, digits, - and _ only)")
    return value


@lru_cache(maxsize=4096)
def event(project: str, kind: str, id_: str) -> str:
    """The subject of the events of one aggregate."""
    return f"{PREFIX}.events.{token(project)}.{token(kind)}.{token(id_)}"


def events(project: str | None = None, kind: str | None = None, id_: str | None = None) -> str:
    """A filter on events; None stands for all."""
    parts = [token(part) if part is not None else "*" for part in (project, kind, id_)]
    return f"{PREFIX}.events." + ".".join(parts)


class EventSubject(NamedTuple):
    project: str
    kind: str
    id: str


def parse_event(subject: str) -> EventSubject:
    """The parts of an event's subject. Raises ValueError for any other subject."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[:2] != [PREFIX, "events"]:
        raise ValueError(f"not the subject of an event: {subject}")
    return EventSubject(*parts[2:])


def command(project: str, kind: str, verb: str) -> str:
    """The subject of a command (request/reply; not stored, since its event is the record)."""
    return f"{PREFIX}.commands.{token(project)}.{token(kind)}.{token(verb)}"


COMMANDS = f"{PREFIX}.commands.*.*.*"
GUESTS_READY = f"{PREFIX}.commands.*.vm.guest-ready"
"""The only command that the projections send."""


def wanted(node: str, kind: str, id_: str) -> str:
    """The subject of the wanted document of one resource on a node. `*` for the node stands for all."""
    of = node if node == "*" else token(node)
    return f"{PREFIX}.nodes.{of}.wanted.{token(kind)}.{token(id_)}"


def wanted_consumer(node: str) -> str:
    """The name of the consumer with which a node reads its wanted documents. Handlers create it."""
    return f"node-{node}"


def list_consumer(node: str) -> str:
    """The name of the consumer with which a node lists its wanted documents. Handlers create it."""
    return f"list-{node}"


def wanted_of(node: str | None = None) -> str:
    return f"{PREFIX}.nodes.{token(node) if node is not None else '*'}.wanted.*.*"


def report(node: str, kind: str, id_: str) -> str:
    """The subject of the reports of a node on one resource."""
    return f"{PREFIX}.nodes.{token(node)}.reports.{token(kind)}.{token(id_)}"


def reports_of(node: str) -> str:
    return f"{PREFIX}.nodes.{token(node)}.reports.*.*"


REPORTS_OF_ALL = f"{PREFIX}.nodes.*.reports.*.*"

KEYED_BEFORE = (f"{PREFIX}.nodes.*.wanted.*", f"{PREFIX}.nodes.*.reports.*")
"""The subjects on which an earlier version stored documents and reports, without the kind."""


class NodeSubject(NamedTuple):
    node: str
    kind: str
    id: str


def parse_wanted(subject: str) -> NodeSubject:
    """The parts of a wanted document's subject. Raises ValueError for any other subject."""
    return _of_node(subject, "wanted")


def parse_report(subject: str) -> NodeSubject:
    """The parts of a report's subject. Raises ValueError for any other subject."""
    return _of_node(subject, "reports")


def _of_node(subject: str, what: str) -> NodeSubject:
    parts = subject.split(".")
    if len(parts) != 6 or parts[:2] != [PREFIX, "nodes"] or parts[3] != what:
        raise ValueError(f"not a subject of {what}: {subject}")
    return NodeSubject(parts[2], parts[4], parts[5])


def node_of(subject: str) -> str:
    """The node that a subject belongs to. Raises ValueError for any other subject."""
    parts = subject.split(".")
    if len(parts) < 4 or parts[:2] != [PREFIX, "nodes"]:
        raise ValueError(f"not a subject of a node: {subject}")
    return parts[2]


def register(node: str) -> str:
    """The subject on which a node registers itself (request/reply; a change becomes an event)."""
    return f"{PREFIX}.nodes.{token(node)}.register"


REGISTER_OF_ALL = f"{PREFIX}.nodes.*.register"


def leave(node: str) -> str:
    """The subject on which a daemon that ends returns the lease of its node (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.leave"


LEAVE_OF_ALL = f"{PREFIX}.nodes.*.leave"


JOIN = f"{PREFIX}.enrollments.join"
"""The subject on which the gateway passes on a host that wants to join (request/reply; the join token is the proof)."""


def renew(node: str) -> str:
    """The subject on which a node asks for a new credential before its own expires (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.renew"


RENEW_OF_ALL = f"{PREFIX}.nodes.*.renew"


def lease(node: str) -> str:
    """The subject of the lease note of a node: the daemon that got its last lease."""
    return f"{PREFIX}.nodes.{token(node)}.lease"


LEASES_OF_ALL = f"{PREFIX}.nodes.*.lease"


def heartbeat(node: str) -> str:
    """The subject of a node's heartbeats."""
    return f"{PREFIX}.nodes.{token(node)}.heartbeat"


HEARTBEATS = f"{PREFIX}.nodes.*.heartbeat"


def ask(node: str, verb: str) -> str:
    """The subject of a request that a node answers itself (request/reply; it changes no desired state)."""
    return f"{PREFIX}.nodes.{token(node)}.asks.{token(verb)}"


def asks_of(node: str | None = None) -> str:
    return f"{PREFIX}.nodes.{token(node) if node is not None else '*'}.asks.*"


def session(node: str, id_: str, hearer: str) -> str:
    """The subject on which one end (`hearer`: `node` or `gateway`) of a connection to a guest receives messages of the
    other. The id is a secret of the two.
    """
    return f"{PREFIX}.nodes.{token(node)}.sessions.{token(id_)}.{token(hearer)}"


def cached_images(node: str) -> str:
    """The subject on which a node asks which of its images are no longer in the catalogue (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.images"


CACHED_IMAGES_OF_ALL = f"{PREFIX}.nodes.*.images"


def image_holder(node: str) -> str:
    """The subject on which a node asks all handlers which process stores an image (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.images.holder"


IMAGE_HOLDER_OF_ALL = f"{PREFIX}.nodes.*.images.holder"


def image_piece(node: str, holder: str) -> str:
    """The subject on which a node requests bytes of an image from a process that stores it (request/reply)."""
    return f"{PREFIX}.nodes.{token(node)}.images.pieces.{token(holder)}"


def image_pieces_of_all(holder: str) -> str:
    return f"{PREFIX}.nodes.*.images.pieces.{token(holder)}"


def role_status(role: str, process: str) -> str:
    """The subject of the status of a process. Not stored."""
    return f"{PREFIX}.roles.{token(role)}.{token(process)}.status"


STATUS_OF_ALL = f"{PREFIX}.roles.*.*.status"


def parked(source: str, key: str) -> str:
    """The subject of the record of one parked message."""
    return f"{PREFIX}.parked.{token(source)}.{token(key)}"


def parked_of(source: str) -> str:
    """A filter on all records of a source."""
    return f"{PREFIX}.parked.{token(source)}.*"


def parked_before(source: str) -> str:
    """The subject on which an earlier version stored all messages of a source."""
    return f"{PREFIX}.parked.{token(source)}"


PARKED_OF_ALL = f"{PREFIX}.parked.*.*"
PARKED_EVER = f"{PREFIX}.parked.>"
"""All records, including those of an earlier version."""


def refusal(source: str) -> str:
    """The subject of refused calls from one source: the digest of an address or a credential."""
    return f"{PREFIX}.refusals.{token(source)}"


def node_refusals(node: str) -> str:
    """The subject on which a node says which packets of its guests it has dropped. Not stored: a gateway records it."""
    return f"{PREFIX}.nodes.{token(node)}.refusals"


NODE_REFUSALS_OF_ALL = f"{PREFIX}.nodes.*.refusals"

REFUSALS_OF_ALL = f"{PREFIX}.refusals.*"


def token_use(id_: str) -> str:
    """The subject of the last use of a token."""
    return f"{PREFIX}.tokens.{token(id_)}.used"


TOKEN_USES_OF_ALL = f"{PREFIX}.tokens.*.used"

HEALTH_CHECK = f"{PREFIX}.health"

MANAGERS_LEASE = f"{PREFIX}.managers.lease"
"""The subject of the lease of the managers."""

GUEST_SEED = f"{PREFIX}.guests.seed"
"""The subject on which guest-data requests the seed of a guest (request/reply; the request has the guest's secret)."""

GUEST_READY = f"{PREFIX}.guests.ready"
"""The subject on which guest-data passes on that a guest is ready (request/reply)."""

GUEST_SEEDS_HELD = f"{PREFIX}.guests.held"
"""The subject on which guest-data asks which of its copies are no longer valid (request/reply)."""


def guest_seed(node: str) -> str:
    """As GUEST_SEED, for guests of one node: only the guest-data of that node can ask there."""
    return f"{PREFIX}.nodes.{node if node == '*' else token(node)}.guests.seed"


def guest_ready(node: str) -> str:
    """As GUEST_READY, for guests of one node."""
    return f"{PREFIX}.nodes.{node if node == '*' else token(node)}.guests.ready"


def guest_seeds_held(node: str) -> str:
    """As GUEST_SEEDS_HELD, for guests of one node."""
    return f"{PREFIX}.nodes.{node if node == '*' else token(node)}.guests.held"


CHECKPOINT = f"{PREFIX}.checkpoints"
"""The subject of all checkpoints, in the order of signing."""


def vault_key(name: str) -> str:
    """The subject of the wrapped key with this name."""
    return f"{PREFIX}.vault.{token(name)}"


VAULT_KEYS = f"{PREFIX}.vault.*"
