"""How a host becomes a node: what it sends to join and to renew its credential, and what it gets."""

from typing import Annotated

from pydantic import Field, StringConstraints

from domain import patterns
from domain.base import Message, Slug
from domain.contract.values import Size

PublicKey = Annotated[str, StringConstraints(pattern=r"^U[A-Z2-7]{55}$")]
"""An ed25519 public key in the format of NATS (nkey)."""
JoinToken = Annotated[str, StringConstraints(pattern=rf"^nbj_{patterns.SLUG}_[A-Za-z0-9_-]{{43}}$", max_length=160)]
"""A join token: the name of its node, and 256 random bits in base64url."""
Proof = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}==$")]
"""An ed25519 signature in base64url."""
MOST_CREDENTIAL = 16 * 1024


class JoinRequest(Message):
    """A host wants to be the node of this name. The token shows that it may. `guest_key`: of its guest-data.

    `proof`, `guest_proof`: made with these keys (`runtime/possession.py`), so that no host names a key of another one.
    Hosts of earlier versions send none, and are refused.
    """

    node: Slug
    token: JoinToken
    public_key: PublicKey
    guest_key: PublicKey | None = None
    proof: Proof | None = None
    guest_proof: Proof | None = None


class RenewRequest(Message):
    """A node asks for a new credential for its key."""

    public_key: PublicKey


class Joined(Message):
    """The credential of a node: a JWT for its key, which is worth nothing without the key; empty if the bus has no
    accounts. `expires_at`, `now`: in seconds since 1970, by the clock of the handlers. `nats_url`: the servers of the
    bus; a host 0.0.0.0 stands for the host at which the node reached the gateway. `nats_ca`: their authority, in PEM.
    `node_key`: the key of the node that proves who wrote a document, sealed for the node's public key, in base64.
    `guest_credential`: a JWT for the key of its guest-data; empty if the host sent no such key when it joined.
    """

    node: Slug
    credential: Annotated[str, Field(max_length=MOST_CREDENTIAL)] = ""
    expires_at: Size
    now: Size
    nats_url: Annotated[str, Field(max_length=2000)]
    nats_ca: Annotated[str, Field(max_length=MOST_CREDENTIAL)] = ""
    node_key: Annotated[str, Field(max_length=200)] = ""
    guest_credential: Annotated[str, Field(max_length=MOST_CREDENTIAL)] = ""
