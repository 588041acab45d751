"""The settings of handlers."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from runtime.settings import checks
from runtime.settings.stores import Keyed, Vaulted


class HandlersSettings(Vaulted, Keyed):
    #: file with the root of the nodes' keys; handlers create it at their first start
    node_keys_file: Path | None = None
    #: let nodes register for the first time that have no key, so that what they say proves nothing
    unsigned_nodes: bool = False
    #: GiB of checked images that are stored for nodes, in addition to those that VMs were made from; 0 for no limit
    image_store_gib: float = Field(default=50.0, ge=0)
    #: number of virtual CPUs that may be reserved per CPU of a host
    vcpu_ratio: float = Field(default=4.0, gt=0, le=64)
    #: base URL of the data source for the guests of all nodes; default: the one that each node registered first
    seed_url: Annotated[str, AfterValidator(checks.directory_url)] | None = None
    #: seconds without a heartbeat after which a node is lost
    node_timeout: float = Field(default=15.0, ge=0.5, le=3600)
    #: seconds without a heartbeat after which another daemon may get the lease of a node that has no VMs
    lease_seconds: float = Field(default=15.0, ge=1, le=3600)
    #: URLs of the NATS servers as nodes on other hosts reach them; default: NEBULA_NATS_URL
    node_nats_url: Annotated[str, AfterValidator(checks.nats_servers)] | None = None
    #: hours for which the credential of a node is valid; it is renewed when a third of them has passed
    node_credential_hours: float = Field(default=720.0, ge=0.001, le=366 * 24)
    #: seconds between two signed checkpoints while new events come
    checkpoint_seconds: float = Field(default=60.0, ge=1, le=86400)
    #: number of new events after which a snapshot of the world is written to the home; 0: never use one
    snapshot_events: int = Field(default=10_000, ge=0)
    #: share of a processor's time for comparing the snapshot of the last start with the whole log
    snapshot_share: float = Field(default=0.005, gt=0, le=1)
    #: number of tries before a stored message is parked
    max_deliver: int = Field(default=10, ge=1, le=1000)
    #: file with the key that signs credentials of nodes, which the authority of the bus makes
    node_signer_file: Path | None = None

    @property
    def node_keys_path(self) -> Path:
        return self.node_keys_file or self.home / "node.keys"

    @property
    def node_signer_path(self) -> Path:
        return self.node_signer_file or self.home / "bus" / "node-signer"
