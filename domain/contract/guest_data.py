"""The requests of guest-data to the projections, and their replies (`runtime/bus/replies.py`).

The secret of a guest's URL is only in requests, never in a subject, a reply or a log.
"""

import base64
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from domain.base import Message, Slug, Uuid
from domain.contract.values import BootId, Mac
from domain.guest import MOST_HOST_KEYS, BoundedKey
from domain.patterns import SHA256

#: Seconds that guest-data waits for a reply. cloud-init waits 5 s for a document.
ASK_SECONDS = 4.0
#: Seconds that guest-data waits for the reply about a ready guest, which also needs handlers.
READY_SECONDS = 8.0
#: Maximum number of characters of the instance id that a guest sends.
MOST_INSTANCE = 256
#: Maximum number of digests in one request.
MOST_DIGESTS = 1000

#: Codes of refusals. Only the first means that the secret is not valid (any more): guest-data then deletes its copy.
#: WITHHELD: the secret is valid, but its VM is off.
UNKNOWN, WITHHELD, REFUSED = "seed_unknown", "seed_withheld", "guest_call_refused"
UNAVAILABLE, BUSY = "guest_data_unavailable", "guest_data_busy"


def _decoded(text: object) -> object:
    """The bytes of a base64 text. Raises ValueError for other characters, which the decoder would skip by default."""
    return base64.b64decode(text, validate=True) if isinstance(text, str) else text


Encoded = Annotated[
    bytes, BeforeValidator(_decoded), PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json")
]
"""Any bytes; base64 in JSON."""

Secret = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,128}$")]
"""The secret of one boot of a VM. It is a part of the seed URL."""

Digest = Annotated[str, StringConstraints(pattern=f"^{SHA256}$")]
"""The SHA-256 of a secret, in hex."""


class SeedQuestion(Message):
    """Requests the seed of the guest that has this secret."""

    secret: Secret


class GuestSeed(Message):
    """The reply: the guest's project and VM, who may have its seed, and the seed.

    - `mac`: the MAC address of the VM. Only the interface with this address gets the seed. None in replies of earlier
      versions.
    - `simulated`: the VM is on a simulated node, so it has no interface.
    - `on_disk`: the node puts the seed on a disk, so the node itself may have it too.
    - `finished`: cloud-init has finished in the present boot of the guest, some time ago.
    """

    project: Slug
    vm: Uuid
    mac: Mac | None = None
    simulated: bool = False
    on_disk: bool = False
    finished: bool = False
    meta_data: str
    user_data: Encoded
    network_config: str = ""


class GuestCall(Message):
    """What a guest sends when it phones home."""

    instance_id: Annotated[str, Field(max_length=MOST_INSTANCE)]
    boot: BootId | None = None
    hostname: Annotated[str, Field(max_length=253)] | None = None
    host_keys: Annotated[tuple[BoundedKey, ...], Field(max_length=MOST_HOST_KEYS)] = ()


class GuestReady(Message):
    """The guest that has this secret is ready. The reply is `Nothing` once handlers have accepted that."""

    secret: Secret
    call: GuestCall


class Nothing(Message):
    """The empty reply: the request is done."""


class SeedsHeld(Message):
    """Asks which of these secrets are no longer valid."""

    digests: Annotated[tuple[Digest, ...], Field(max_length=MOST_DIGESTS)]


class SeedsUnknown(Message):
    """The reply: the digests of secrets that are no longer valid, in the order of the request."""

    digests: Annotated[tuple[Digest, ...], Field(max_length=MOST_DIGESTS)]
