"""The one table of the bus: each subject, the account that it lives in, who publishes on it and who hears it.

The accounts' exports and imports, the permissions of each credential and docs/bus-access.md are derived from it. What
does not stand here is not possible.

A message of another account enters an account only by a service import, and leaves it only by a stream import or as the
answer to a request. An answer is delivered in the asking account under a subject that the server chooses, so the reply
subject of a request cannot write into the account that answers.

Streams are in CONTROL, with the authority and maintenance only. Handlers import what they call there, too: otherwise
an empty answer to a read could be sent to a call that deletes a stream.

A consumer's delivery subject is one of CONTROL, so whoever creates one can write there. Only handlers may, and the
server delivers to no call of JetStream. Others read by direct gets (`reading.py`); a node reads one consumer that
handlers have created for it. Nobody may change a stream but the authority and maintenance: its setting `republish`
can send an empty message to any call.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from runtime import subjects

#: The word of a subject that stands for the name of a node: its own for a node, any for everybody else.
NODE = "{node}"
#: The JetStream API, and its name in accounts that import single calls of it.
API, IMPORTED_API = "$JS.API", "$JS.nebula.API"


class Account(StrEnum):
    """The accounts. Streams are in CONTROL; SYS is the server's own."""

    SYS = "SYS"
    CONTROL = "CONTROL"
    HANDLERS = "HANDLERS"
    GATEWAY = "GATEWAY"
    PROJECTIONS = "PROJECTIONS"
    GUESTS = "GUESTS"
    NODES = "NODES"


class Answers(StrEnum):
    """How many answers a request gets."""

    NONE = "none"
    ONE = "one"
    MANY = "many"


@dataclass(frozen=True)
class Role:
    """One credential, or one for each node."""

    name: str
    account: Account
    why: str


@dataclass(frozen=True)
class Row:
    """`home`: the account in which the subject lives. `publish`, `hear`: names of roles."""

    subject: str
    home: Account
    publish: tuple[str, ...]
    hear: tuple[str, ...]
    answers: Answers
    why: str


HANDLERS, GATEWAY, PROJECTIONS, GUEST_DATA = "handlers", "gateway", "projections", "guest-data"
SIMULATION, AUTHORITY, MAINTENANCE, SYSTEM = "simulation", "authority", "maintenance", "system"
A_NODE = "node"

ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role(HANDLERS, Account.HANDLERS, "decides commands, writes the log and the documents of nodes"),
        Role(GATEWAY, Account.GATEWAY, "passes on calls, reads the log"),
        Role(PROJECTIONS, Account.PROJECTIONS, "reads the log into Postgres, answers guest-data"),
        Role(GUEST_DATA, Account.GUESTS, "asks for what a guest is told"),
        Role(A_NODE, Account.NODES, "one node: its own documents and reports"),
        Role(SIMULATION, Account.NODES, "simulated nodes, all of them in one process"),
        Role(AUTHORITY, Account.CONTROL, "revokes credentials of nodes, records what the bus refuses, adapts streams"),
        Role(MAINTENANCE, Account.CONTROL, "an operator's own: it alone may delete and purge any stream"),
        Role(SYSTEM, Account.SYS, "pushes accounts to the servers, and asks whether they can store"),
    )
}
NODES = (A_NODE, SIMULATION)
READERS = (GATEWAY, PROJECTIONS)
REVOKE = f"{subjects.PREFIX}.bus.revoke"
"""The subject on which handlers ask for a credential to be revoked (request/reply)."""
MAINTAINED = f"{subjects.PREFIX}.bus.maintained"
"""The subject on which the authority tells handlers what was done to streams, to be recorded (request/reply)."""
ADVISORIES = "$JS.EVENT.ADVISORY.API"
"""The subject on which servers tell of each call of the JetStream API in an account."""

EVENTS, WANTED, REPORTS, PARKED = subjects.EVENTS, subjects.WANTED, subjects.REPORTS, subjects.PARKED
STREAMS = (
    *(EVENTS, WANTED, REPORTS, PARKED, subjects.CHECKPOINTS),
    *(subjects.LEASES, subjects.MANAGERS, subjects.HEALTH, subjects.VAULT),
    *(subjects.REFUSALS, subjects.TOKEN_USES),
)
#: Streams of which handlers remove single subjects, and whose subjects a newer version may change.
PURGED = (WANTED, REPORTS, PARKED)
#: The bucket of an earlier version, whose keys handlers take over.
BUCKET = f"KV_{subjects.KEYS}"
#: What the guest-data of a host that joined may not ask: it uses the subjects of its own node.
OF_ANY_NODE = (subjects.GUEST_SEED, subjects.GUEST_READY, subjects.GUEST_SEEDS_HELD)


def local(subject: str, home: Account, account: Account) -> str:
    """The subject's name in an account: the JetStream API of CONTROL has another name where it is imported."""
    imported = account is not home and subject.startswith(f"{API}.")
    return IMPORTED_API + subject.removeprefix(API) if imported else subject


def inbox(role: str, node: str | None = None) -> str:
    """The prefix of a credential's own inboxes."""
    return f"_INBOX.{role}" if node is None else f"_INBOX.{role}-{node}"


def calls() -> Iterator[Row]:
    """Requests and messages that are not stored."""

    def row(
        subject: str, publish: Iterable[str], hear: Iterable[str], answers: Answers, why: str, home: Account
    ) -> Row:
        return Row(subject, home, tuple(publish), tuple(hear), answers, why)

    handlers, one, none = Account.HANDLERS, Answers.ONE, Answers.NONE
    of_node = f"{subjects.PREFIX}.nodes.{NODE}"
    yield row(subjects.COMMANDS, [GATEWAY], [HANDLERS], one, "commands of callers", handlers)
    yield row(subjects.JOIN, [GATEWAY], [HANDLERS], one, "a host wants to join", handlers)
    yield row(subjects.GUESTS_READY, [PROJECTIONS], [], one, "a guest is ready", handlers)
    for verb, why in (
        ("register", "a node registers, and gets its lease"),
        ("leave", "a node returns its lease"),
        ("renew", "a node asks for a new credential"),
        ("images", "which cached images are no longer in the catalogue"),
        ("images.holder", "who stores an image"),
        ("images.pieces.*", "bytes of an image"),
    ):
        yield row(f"{of_node}.{verb}", NODES, [HANDLERS], one, why, handlers)
    # What one account imports as a service, another does not hear as a stream: so it is exported by the first one, too.
    yield row(f"{of_node}.heartbeat", NODES, [HANDLERS], one, "signs of life", handlers)
    yield row(f"{of_node}.heartbeat", NODES, [GATEWAY], none, "signs of life", Account.NODES)
    yield row(f"{of_node}.refusals", NODES, [GATEWAY], none, "packets of guests that it has dropped", Account.NODES)
    yield row(f"{of_node}.asks.*", [GATEWAY], NODES, one, "questions that a node answers itself", Account.NODES)
    sessions = f"{of_node}.sessions.*"
    yield row(f"{sessions}.node", [GATEWAY], NODES, none, "connections to guests", Account.GATEWAY)
    yield row(f"{sessions}.gateway", NODES, [GATEWAY], none, "connections to guests", Account.NODES)
    for role in (HANDLERS, PROJECTIONS, GUEST_DATA, GATEWAY):
        status = subjects.STATUS_OF_ALL.replace("*", role, 1)
        yield row(status, [role], [], none, "status of a process", Account.GATEWAY)
    yield row(subjects.STATUS_OF_ALL, [], [GATEWAY], none, "status of all processes", Account.GATEWAY)
    for subject, why in (
        (subjects.GUEST_SEED, "what a guest is told"),
        (subjects.GUEST_READY, "a guest is ready"),
        (subjects.GUEST_SEEDS_HELD, "which sealed copies are no longer valid"),
    ):
        yield row(subject, [GUEST_DATA], [PROJECTIONS], one, f"{why}, on any node", Account.PROJECTIONS)
    for verb, why in (
        ("seed", "what a guest of the node is told"),
        ("ready", "a guest of the node is ready"),
        ("held", "which sealed copies are not valid on the node"),
    ):
        yield row(f"{of_node}.guests.{verb}", [GUEST_DATA], [PROJECTIONS], one, why, Account.PROJECTIONS)
    yield row(REVOKE, [HANDLERS], [AUTHORITY], one, "a node's credential is revoked", Account.CONTROL)
    yield row(MAINTAINED, [AUTHORITY], [HANDLERS], one, "what maintenance did to streams", handlers)


def stored() -> Iterator[Row]:
    """Messages that a stream stores. Whoever hears them takes them as a hint to read: some may have been refused."""

    def row(subject: str, publish: Iterable[str], hear: Iterable[str], why: str) -> Row:
        return Row(subject, Account.CONTROL, tuple(publish), tuple(hear), Answers.ONE, why)

    of_node = f"{subjects.PREFIX}.nodes.{NODE}"
    # What CONTROL imports as a service is no stream of its: readers get the hints from the account of handlers.
    for subject, readers, why in (
        (subjects.events(), READERS, "the log"),
        (subjects.PARKED_EVER, (GATEWAY,), "parked messages"),
    ):
        yield row(subject, [HANDLERS], [], why)
        yield Row(subject, Account.HANDLERS, (HANDLERS,), readers, Answers.NONE, f"{why}: a hint to read")
    yield row(subjects.parked_of("log"), [PROJECTIONS], [], "events that cannot be applied")
    yield row(f"{of_node}.wanted.*.*", [HANDLERS], [], "what a node has to run")
    yield row(f"{of_node}.reports.*.*", [HANDLERS, *NODES], [], "what a node says; handlers retry parked ones")
    yield row(f"{of_node}.lease", [HANDLERS], [], "the last lease of a node")
    yield row(subjects.REFUSALS_OF_ALL, [GATEWAY, AUTHORITY], [GATEWAY], "refused calls, and what the bus refuses")
    yield row(subjects.refusal("guests"), [GUEST_DATA], [], "what guest-data refuses")
    yield row(subjects.refusal("elsewhere"), [PROJECTIONS], [], "questions about guests of other nodes")
    yield row(subjects.TOKEN_USES_OF_ALL, [GATEWAY], [GATEWAY], "last uses of tokens")
    for subject, why in (
        (subjects.MANAGERS_LEASE, "which process runs the managers"),
        (subjects.HEALTH_CHECK, "whether the servers can store"),
        (subjects.CHECKPOINT, "signed checkpoints"),
        (subjects.VAULT_KEYS, "wrapped keys"),
    ):
        yield row(subject, [HANDLERS], [], why)


def api() -> Iterator[Row]:
    """Calls of the JetStream API, down to the stream and the verb."""

    def row(call: str, who: Iterable[str], why: str, answers: Answers = Answers.ONE) -> Row:
        return Row(f"{API}.{call}", Account.CONTROL, tuple(who), (), answers, why)

    from_leader = {EVENTS: READERS, PARKED: READERS, subjects.VAULT: [PROJECTIONS]}
    of_the_gateway = (subjects.REFUSALS, subjects.TOKEN_USES, subjects.CHECKPOINTS)
    readers = {**from_leader, **{stream: [GATEWAY] for stream in of_the_gateway}}
    for stream in STREAMS:
        who = [HANDLERS, *readers.get(stream, [])]
        yield row(f"STREAM.INFO.{stream}", who, "its end, and its settings")
        yield row(f"DIRECT.GET.{stream}", who, "read", Answers.MANY)
        newest = [HANDLERS, *from_leader.get(stream, [])]
        yield row(f"STREAM.MSG.GET.{stream}", newest, "read the newest from its leader")
        yield row(f"STREAM.CREATE.{stream}", [HANDLERS], "created at the first start")
        for call in ("CREATE", "DURABLE.CREATE", "DELETE", "INFO"):
            yield row(f"CONSUMER.{call}.{stream}.>", [HANDLERS], "consumers")
        yield row(f"CONSUMER.MSG.NEXT.{stream}.>", [HANDLERS], "consumers", Answers.MANY)
        for subject in (f"$JS.ACK.{stream}.>", f"$JS.FC.{stream}.>"):
            yield Row(subject, Account.CONTROL, (HANDLERS,), (), Answers.NONE, "acknowledge, flow control")
    for stream in PURGED:
        yield row(f"STREAM.INFO.{stream}", [AUTHORITY], "its settings")
        yield row(f"STREAM.UPDATE.{stream}", [AUTHORITY], "new subjects of a newer version")
        yield row(f"STREAM.PURGE.{stream}", [HANDLERS], "remove what belongs to a deleted resource")
    yield row(f"STREAM.INFO.{subjects.VAULT}", [AUTHORITY], "its settings")
    yield row(f"STREAM.UPDATE.{subjects.VAULT}", [AUTHORITY], "atomic batches, in a newer version")
    delivered = f"{inbox(HANDLERS)}.>"
    yield Row(delivered, Account.CONTROL, (), (HANDLERS,), Answers.NONE, "what consumers deliver to handlers")
    told = "servers tell of each call: what maintenance does is recorded"
    yield Row(ADVISORIES, Account.CONTROL, (), (AUTHORITY,), Answers.NONE, told)
    yield row(f"STREAM.MSG.DELETE.{subjects.VAULT}", [HANDLERS], "erase a key")
    yield row(f"STREAM.MSG.DELETE.{WANTED}", [HANDLERS], "drop a parked document")
    for call in ("STREAM.INFO", "STREAM.MSG.GET", "STREAM.DELETE"):
        yield row(f"{call}.{BUCKET}", [HANDLERS], "take over the keys of an earlier version")
    for consumer in (subjects.wanted_consumer(NODE), subjects.list_consumer(NODE)):
        yield row(f"CONSUMER.RESET.{WANTED}.{consumer}", NODES, "read its own documents from a position on")
        yield row(f"CONSUMER.MSG.NEXT.{WANTED}.{consumer}", NODES, "read its own documents", Answers.MANY)
    note = f"{subjects.LEASES}.{subjects.PREFIX}.nodes.{NODE}.lease"
    yield row(f"DIRECT.GET.{note}", NODES, "its own last lease")


def rows() -> tuple[Row, ...]:
    return (*calls(), *stored(), *api())


ROWS = rows()
