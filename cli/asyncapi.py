"""The AsyncAPI 3.0 document of the bus: which messages travel on which subjects.

It is derived from the code. Each function of `runtime/subjects.py` gives a channel with its address and its parameters.
The schemas are those of the types that are read and written there. `TRAVELS` and `FIXED` say which types are sent on
which subject. If a subject is missing there, or one of them no longer exists, the document is not made (Incomplete).
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nats.js.api import StreamConfig
from pydantic import TypeAdapter

from domain.base import Event
from domain.contract import (
    CachedImages,
    CommandReply,
    CommandRequest,
    Connection,
    ConsoleLog,
    Heartbeat,
    HostUsageQuestion,
    ImageHolder,
    ImagePiece,
    ImageQuestion,
    Introduction,
    LeaseGranted,
    LeaseNote,
    Leaving,
    NodeReport,
    Question,
    RefusedDocument,
    RoleStatus,
    UnwantedImages,
    UsageQuestion,
    Wanted,
)
from domain.contract.guest_data import GuestReady, GuestSeed, Nothing, SeedQuestion, SeedsHeld, SeedsUnknown
from domain.contract.joining import Joined, JoinRequest, RenewRequest
from domain.guest import Guest
from domain.guest_usage import UsageSeries
from domain.kinds import KINDS, NAMES
from domain.operation import Operation
from domain.vm.preview import VmPreview
from eventstore.integrity import schemas
from eventstore.integrity.checkpoints import Checkpoint
from eventstore.integrity.schemas import DIALECT, Document, file_name, headers_schema
from eventstore.log.upcast import all_types
from eventstore.parking.parked import Parked
from gateway.access.uses import TokenUse
from handlers.managers.lease import Note
from runtime import subjects
from runtime.bus import streams
from runtime.bus.refused_calls import Refusal as Refused
from runtime.bus.replies import Refusal

ASYNCAPI = "asyncapi.json"

#: The verb that is a question: it changes nothing, and its answer is no `CommandReply`.
PREVIEW = "preview"
Subject = Callable[..., str]

BYTES = bytes
"""The type of a body that is not JSON."""


@dataclass(frozen=True)
class Travels:
    """The types of messages on a subject. `answers`: the types of replies, if it is a request."""

    types: tuple[Any, ...]
    answers: tuple[Any, ...] = ()


TRAVELS: Mapping[Subject, Travels] = {
    subjects.event: Travels(tuple(all_types().values())),
    subjects.command: Travels((CommandRequest,), (CommandReply[Operation, Any], VmPreview)),
    subjects.wanted: Travels((Wanted,)),
    subjects.report: Travels((NodeReport, RefusedDocument)),
    subjects.register: Travels((Introduction,), (LeaseGranted,)),
    subjects.leave: Travels((Leaving,), (dict[str, Any],)),
    subjects.renew: Travels((RenewRequest,), (Joined,)),
    subjects.lease: Travels((LeaseNote,)),
    subjects.heartbeat: Travels((Heartbeat,)),
    subjects.ask: Travels(
        (Question, ConsoleLog, Connection, UsageQuestion, HostUsageQuestion),
        (Guest, UsageSeries, dict[str, Any], BYTES),
    ),
    subjects.session: Travels((BYTES,)),
    subjects.cached_images: Travels((CachedImages,), (UnwantedImages,)),
    subjects.image_holder: Travels((ImageQuestion,), (ImageHolder,)),
    subjects.image_piece: Travels((ImagePiece,), (BYTES,)),
    subjects.role_status: Travels((RoleStatus,)),
    subjects.parked: Travels((Parked,)),
    subjects.vault_key: Travels((BYTES,)),
    subjects.guest_seed: Travels((SeedQuestion,), (GuestSeed,)),
    subjects.guest_ready: Travels((GuestReady,), (Nothing,)),
    subjects.guest_seeds_held: Travels((SeedsHeld,), (SeedsUnknown,)),
    subjects.refusal: Travels((Refused,)),
    subjects.node_refusals: Travels((Refused,)),
    subjects.token_use: Travels((TokenUse,)),
}

FIXED: Mapping[str, Travels] = {
    subjects.JOIN: Travels((JoinRequest,), (Joined,)),
    subjects.CHECKPOINT: Travels((Checkpoint,)),
    subjects.MANAGERS_LEASE: Travels((Note,)),
    subjects.HEALTH_CHECK: Travels((BYTES,)),
    subjects.GUEST_SEED: Travels((SeedQuestion,), (GuestSeed,)),
    subjects.GUEST_READY: Travels((GuestReady,), (Nothing,)),
    subjects.GUEST_SEEDS_HELD: Travels((SeedsHeld,), (SeedsUnknown,)),
}
"""The subjects without a variable part."""

EARLIER: tuple[Subject, ...] = (subjects.parked_before,)
"""Subjects that only earlier versions wrote to."""

PARAMETERS: Mapping[tuple[str, str], Iterable[str]] = {
    ("event", "kind"): NAMES,
    ("command", "kind"): list(KINDS),
    ("command", "verb"): sorted({verb.name for kind in KINDS.values() for verb in kind.verbs} | {PREVIEW}),
}
"""The values of a channel's parameter, where they are known."""


class Incomplete(LookupError):
    """A subject has no types here, or types are given for a subject that does not exist."""


@dataclass(frozen=True)
class Channel:
    name: str
    address: str
    parameters: tuple[str, ...]
    description: str
    travels: Travels

    @property
    def filter(self) -> str:
        return ".".join("*" if part.startswith("{") else part for part in self.address.split("."))


def channels() -> list[Channel]:
    """Every subject of the platform. Raises Incomplete."""
    found = {function: template for function in builders() if (template := address(function))}
    names = fixed()
    wrong = {function.__name__ for function in found.keys() ^ TRAVELS.keys()} | (names.keys() ^ FIXED.keys())
    if wrong:
        raise Incomplete(f"subjects and what travels on them differ: {', '.join(sorted(wrong))}")
    derived = [
        Channel(
            name=function.__name__,
            address=template,
            parameters=tuple(plain(name) for name in inspect.signature(function).parameters),
            description=inspect.getdoc(function) or "",
            travels=TRAVELS[function],
        )
        for function, template in found.items()
    ]
    return derived + [Channel(names[subject], subject, (), "", travels) for subject, travels in FIXED.items()]


def builders() -> list[Subject]:
    """The functions of `runtime/subjects.py` that make one subject from its parts."""
    named = vars(subjects).values()
    functions = [each for each in named if inspect.isroutine(each) and each.__module__ == subjects.__name__]
    return [each for each in functions if each not in EARLIER and takes_all_parts(inspect.signature(each))]


def takes_all_parts(signature: inspect.Signature) -> bool:
    """Whether the function returns a text and requires all parts; functions for filters do not."""
    given = [parameter.default is inspect.Parameter.empty for parameter in signature.parameters.values()]
    return signature.return_annotation is str and all(given)


def address(function: Subject) -> str | None:
    """The subject with a name for each variable part; None if the function makes a filter, or no subject."""
    names = list(inspect.signature(function).parameters)
    try:
        parts = function(*names).split(".")
    except ValueError:
        return None  # it parses a subject
    if parts[0] != subjects.PREFIX or "*" in parts:
        return None
    return ".".join(f"{{{plain(part)}}}" if part in names else part for part in parts)


def plain(parameter: str) -> str:
    """The parameter's name without a final `_`, which only avoids a conflict with a name of Python."""
    return parameter.rstrip("_")


def fixed() -> dict[str, str]:
    """The constant subjects, without filters, with the names of their constants."""
    texts = {text: name.lower() for name, text in vars(subjects).items() if isinstance(text, str)}
    return {
        text: name
        for text, name in texts.items()
        if text.startswith(f"{subjects.PREFIX}.") and not set(text) & set("*>")
    }


def documents() -> dict[str, Document]:
    """Every generated file by its name: this document and the JSON Schemas that it refers to. Raises Incomplete."""
    return {**schemas.documents(), ASYNCAPI: async_api()}


def async_api() -> Document:
    """The document. Raises Incomplete."""
    every = channels()
    described: dict[str, Document] = {}
    operations: dict[str, Document] = {}
    messages: dict[str, Document] = {}
    for channel in every:
        mine = {message_name(kind, channel.name): message(kind) for kind in channel.travels.types}
        messages |= mine
        described[channel.name] = {
            "address": channel.address,
            "description": " ".join([*channel.description.split("\n\n")[:1], stored(channel)]).strip(),
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in mine},
            **({"parameters": parameters(channel)} if channel.parameters else {}),
        }
        if not channel.travels.answers:
            operations[channel.name] = {"action": "receive", "channel": {"$ref": f"#/channels/{channel.name}"}}
            continue
        back = f"{channel.name}.reply"
        replies = {message_name(kind, back): message(kind, answer=True) for kind in channel.travels.answers}
        messages |= replies | {"Refusal": message(Refusal, answer=True)}
        described[back] = {
            "address": None,
            "description": "The subject of the reply is the request's.",
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*replies, "Refusal")},
        }
        asks = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel.name}"},
            "reply": {"channel": {"$ref": f"#/channels/{back}"}},
        }
        operations |= commands(asks) if channel.travels is TRAVELS[subjects.command] else {channel.name: asks}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Nebula on NATS",
            "version": "2",
            "description": "Subjects, headers and bodies. Additions are no new version: ignore what you do not know.",
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": described,
        "operations": operations,
        "components": {"messages": messages, "messageTraits": {"cloudEvent": {"headers": headers_schema()}}},
    }


def commands(asks: Document) -> dict[str, Document]:
    """The verbs of each kind, as operations of one channel."""
    every = [(kind, verb) for kind in KINDS.values() for verb in kind.verbs]
    found = {f"command.{kind.name}.{verb.name}": {**asks, "summary": verb.summary} for kind, verb in every}
    return {**found, f"command.vm.{PREVIEW}": {**asks, "summary": "What a create would do; nothing is stored"}}


def parameters(channel: Channel) -> Document:
    values = {name: PARAMETERS.get((channel.name, name)) for name in channel.parameters}
    return {name: {"enum": list(known)} if known else {} for name, known in values.items()}


def stored(channel: Channel) -> str:
    """The stream that stores the channel, if any, and how many of its messages."""
    for stream in streams.platform_streams(1):
        if channel.filter in (stream.subjects or ()):
            return f"Stream {stream.name}{kept(stream)}."
    return "" if channel.travels.answers else "Not stored."


def kept(stream: StreamConfig) -> str:
    match stream.max_msgs_per_subject:
        case 1:
            return ": the newest of each subject"
        case int(most) if most > 1:
            return f": the newest {most} of each subject"
        case _:
            return ""


def message_name(kind: Any, channel: str) -> str:
    """The name of a message. Two types of one name would collide; a test checks that there are none."""
    if kind is BYTES:
        return f"{channel}.bytes"
    if isinstance(kind, type) and issubclass(kind, Event):
        return kind.TOPIC
    return f"{channel}.object" if kind == dict[str, Any] else title(kind)


def title(kind: Any) -> str:
    origin: Any = getattr(kind, "__origin__", kind)
    return str(origin.__name__)


def message(kind: Any, *, answer: bool = False) -> Document:
    """A message of this type. An answer is in an envelope, which says whether it is one or a refusal."""
    if kind is BYTES:
        return {"title": "Bytes", "contentType": "application/octet-stream"}
    if isinstance(kind, type) and issubclass(kind, Event):
        return {
            "name": kind.TOPIC,
            "title": kind.__name__,
            "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
            "payload": payload({"$ref": file_name(kind.TOPIC)}),
        }
    schema = TypeAdapter(kind).json_schema(mode="serialization" if answer else "validation")
    summary = " ".join((schema.get("description") or "").split("\n\n")[0].split())
    if answer:
        definitions = schema.pop("$defs", None)
        part = "problem" if kind is Refusal else "ok"
        schema = {"type": "object", "properties": {part: schema}, "required": [part]}
        schema |= {"$defs": definitions} if definitions else {}
    return {
        "title": title(kind),
        **({"summary": summary} if summary else {}),
        "payload": payload({"$schema": DIALECT, **schema}),
    }


def payload(schema: Document) -> Document:
    return {"schemaFormat": f"application/schema+json;version={DIALECT}", "schema": schema}
