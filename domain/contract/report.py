"""A node's report about one resource: its present state, as the hypervisor shows it."""

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
    """Why the node cannot bring a VM to the desired state. It does not try again until somebody changes something."""

    code: Code
    detail: Annotated[str, BeforeValidator(detail)]


class Report(Message):
    """The fields that the reports of all kinds have. The subject of a report also names node, kind and id.

    `lease`: the number of the daemon's lease. `sequence` increases with each report about a resource under that lease,
    and is at most the number of nanoseconds since the lease was granted. `epoch`: the epoch of the wanted document.
    `features`: the features that a reader of this report has to know.
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
    """A node refuses a wanted document, because it does not know its kind. It leaves the resource unchanged."""

    id: Token
    error: ReportError


class NodeReport(Report):
    """What a node observes of one VM.

    - `desired`, `asked_boots`: the wanted document that the daemon worked from. Handlers ignore a report that comes
      from an outdated document.
    - `boots`: the boot count that the running domain was started for; 0 if no domain runs.
    - `cause`: why the domain is off, if libvirt knows; `forced`: the node powered it off without a shutdown.
    - `step`: what the daemon does at present: image (and how much of it is copied), disk, domain.
    - `address_sources`: the addresses of the guest's present boot, with the source of each; None before the node has
      asked a source. `addresses`: the same, for readers that do not know sources.
    - `size`: the resources that the running domain was started with; `host_boot`: the boot of the host in which it was
      started.
    - `resets`: how often the guest has reset itself since then; `watchdog_resets`: how many of these by its watchdog.
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
