"""What guest-data and the projections say to each other: a request and its answer (`runtime/bus/replies.py`).

The secret of a guest's URL stands in requests alone: never in a subject, an answer or a log.
"""

import base64
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from domain.base import Message, Slug, Uuid
from domain.contract.values import BootId
from domain.guest import MOST_HOST_KEYS, BoundedKey
from domain.patterns import SHA256

#: Seconds that guest-data waits for an answer. cloud-init waits 5 s for a document.
ASK_SECONDS = 4.0
#: Seconds that it waits for handlers as well, when a guest is ready.
READY_SECONDS = 8.0
#: Characters of what a guest says is its instance id.
MOST_INSTANCE = 256
#: Digests in one question.
MOST_DIGESTS = 1000

#: Codes of refusals. Only the first says that the secret opens nothing: guest-data forgets its copy then.
UNKNOWN, REFUSED, UNAVAILABLE, BUSY = "seed_unknown", "guest_call_refused", "guest_data_unavailable", "guest_data_busy"


def _decoded(text: object) -> object:
    """What stands in base64 as bytes. Raises ValueError for what is none: the decoder would leave out what it cannot
    read."""
    return base64.b64decode(text, validate=True) if isinstance(text, str) else text


Encoded = Annotated[
    bytes, BeforeValidator(_decoded), PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json")
]
"""Any bytes; in base64 where they are JSON."""

Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,128}$")]
"""The secret of one boot of a VM, which is a part of its seed URL."""

Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
"""The SHA-256 of a secret, in hex."""


class SeedQuestion(Message):
    """What is the guest told that knows this secret?"""

    secret: Secret


class GuestSeed(Message):
    """The answer: who the guest is, for whoever serves it, and what the guest is told."""

    project: Slug
    vm: Uuid
    meta_data: str
    user_data: Encoded
    network_config: str = ""


class GuestCall(Message):
    """What a guest says of itself when it phones home."""

    instance_id: Annotated[str, Field(max_length=MOST_INSTANCE)]
    boot: BootId | None = None
    hostname: Annotated[str, Field(max_length=253)] | None = None
    host_keys: Annotated[tuple[BoundedKey, ...], Field(max_length=MOST_HOST_KEYS)] = ()


class GuestReady(Message):
    """The guest that knows this secret is ready. The answer is `Nothing` once handlers have taken it."""

    secret: Secret
    call: GuestCall


class Nothing(Message):
    """The answer that says no more than that it is done."""


class SeedsHeld(Message):
    """Which of these secrets open nothing any more?"""

    digests: Annotated[tuple[Digest, ...], Field(max_length=MOST_DIGESTS)]


class SeedsUnknown(Message):
    """The answer: those that do not, in the order of the question."""

    digests: Annotated[tuple[Digest, ...], Field(max_length=MOST_DIGESTS)]
