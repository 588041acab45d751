"""The settings of simulated nodes: many in one process."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from runtime.settings.node import NodeSettings


class Latencies(BaseModel):
    """Durations on a simulated host in seconds. The actual time varies between 0.5 and 1.5 of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: one call to the hypervisor
    call: float = Field(default=0.002, ge=0)
    #: fetch of an image, at its first use on a host
    image: float = Field(default=1.0, ge=0)
    #: from the start of a domain until its guest has booted, reacts to a shutdown and fetches its seed
    boot: float = Field(default=5.0, ge=0)
    #: from the start of a domain until its guest has an address
    lease: float = Field(default=2.0, ge=0)
    #: from a shutdown request until a booted guest is off
    shutdown: float = Field(default=2.0, ge=0)
    #: to write a guest's memory to disk, or read it
    memory: float = Field(default=2.0, ge=0)
    #: from the power-off of a host until its next boot
    reboot: float = Field(default=20.0, ge=0)


class FaultRates(BaseModel):
    """The rates of faults on simulated hosts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: shares of the calls to the hypervisor that are refused, and that hang until the deadline
    refused: float = Field(default=0.0, ge=0, le=1)
    hang: float = Field(default=0.0, ge=0, le=1)
    #: faults per hour and VM: QEMU crashes; the guest powers itself off; an I/O error pauses it; somebody deletes the
    #: domain
    crash: float = Field(default=0.0, ge=0)
    poweroff: float = Field(default=0.0, ge=0)
    stall: float = Field(default=0.0, ge=0)
    vanish: float = Field(default=0.0, ge=0)
    #: faults per hour and host: its hypervisor restarts; the host itself reboots
    outage: float = Field(default=0.0, ge=0)
    reboot: float = Field(default=0.0, ge=0)
    #: seconds by which the clocks of all hosts are ahead; negative: behind
    clock: float = Field(default=0.0, ge=-86400, le=86400)


class SimulationSettings(NodeSettings):
    """Many simulated nodes in one process."""

    #: number of nodes; their names are sim-001, sim-002 …
    simulate: int = Field(default=10, ge=1, le=9999)
    simulate_prefix: str = Field(default="sim", pattern=r"^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$")
    #: capacity of each node
    simulate_vcpus: int = Field(default=32, ge=1)
    simulate_memory_mib: int = Field(default=128 * 1024, ge=64)
    simulate_disk_gib: int = Field(default=2048, ge=1)
    #: durations and rates of faults, as JSON objects
    simulate_seconds: Latencies = Latencies()
    simulate_faults: FaultRates = FaultRates()
    #: seed of the random numbers
    simulate_seed: int = 0
    #: whether guests fetch their seed and phone home, as cloud-init does
    simulate_phone_home: bool = True
    #: port of the metrics of all these nodes
    metrics_port: int = Field(default=0, ge=0, le=65535)
    #: file with the root of the nodes' keys, if there is one
    node_keys_file: Path | None = None

    @property
    def node_keys_path(self) -> Path:
        return self.node_keys_file or self.home / "node.keys"

    @property
    def data_dir(self) -> Path:
        return self.node_data or self.home / f"simulated-{self.simulate_prefix}"
