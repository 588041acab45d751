"""What a node reports of one thing: what the hypervisor says, as of now."""

from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from domain.base import Message, Resources, Slug, Uuid
from domain.contract.values import (
    MOST_ADDRESSES,
    Code,
    Counter,
    Desired,
    Features,
    HostBoot,
    KindName,
    Position,
    Power,
    Token,
    address,
    bounded,
    detail,
    one_line,
    whole_numbers,
)
from domain.guest import AddressSource


class ReportError(Message):
    """Why a VM cannot be made as wanted: for good, until somebody changes something."""

    code: Code
    detail: Annotated[str, BeforeValidator(detail)]


class Report(Message):
    """What every report says, whatever kind of thing it is about. Its subject names node, kind and id as well.

    `lease` is what the daemon was given for its node; `sequence` rises with every report of a thing under that lease
    and is at most the nanoseconds since it was given. `epoch` is that of the document. `features` names what whoever
    reads it has to know.
    """

    kind: KindName
    node: Slug
    epoch: Counter
    lease: Counter = 0
    sequence: Position
    at: AwareDatetime
    features: Features = ()
    error: ReportError | None = None


class RefusedDocument(Report):
    """A node does nothing about a document: it does not know its kind. What there is of the thing is left as it is."""

    id: Token
    error: ReportError


class NodeReport(Report):
    """What a node sees of one VM.

    `desired` and `asked_boots` say which wanted document the daemon went
    by: what it says about another wish than the present one is no news. `boots` is the count that the domain in memory
    was started for (0 when there is none). `cause` says why a domain is off, where libvirt knows; `forced` that its
    plug was pulled. `step` tells what the daemon is busy with (image, with how much of it has come; disk; domain).
    `address_sources` are the addresses of this very boot of the guest and who says so; None until somebody was asked.
    `addresses` are the same for readers that know no sources. `size` is what the domain in memory was started with,
    `host_boot` the boot of the host that it was started in, and `resets` how often its guest has reset itself since: a
    boot of which nobody was asked. `watchdog_resets` of them were its watchdog's doing.
    """

    kind: Literal["vm"] = "vm"  # reports of earlier versions do not say it
    vm: Uuid
    power: Power
    desired: Desired | None = None
    asked_boots: Counter | None = None
    boots: Counter = 0
    size: Annotated[Resources, BeforeValidator(whole_numbers), AfterValidator(bounded)] | None = None
    addresses: Annotated[tuple[Annotated[str, AfterValidator(address)], ...], Field(max_length=MOST_ADDRESSES)] = ()
    address_sources: Annotated[tuple[AddressSource, ...], Field(max_length=MOST_ADDRESSES)] | None = None
    cause: Literal["guest", "crashed", "watchdog"] | None = None
    forced: bool = False
    host_boot: HostBoot | None = None
    resets: Counter = 0
    watchdog_resets: Counter = 0
    step: Annotated[str, BeforeValidator(one_line)] | None = None
