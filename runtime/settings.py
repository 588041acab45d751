"""The settings of each process: one frozen class for each, read once in `main` from `NEBULA_*`, and
passed on by hand.
"""

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from runtime.http.limits import Limits
from runtime.images.image_hosts import ImageHosts
from runtime.issuer import issuer
from runtime.oidc_roles import OidcRoles
from runtime.subjects import SLUG
from runtime.text.explained import explained
from runtime.text.masking import masked

ENCODED = "in a user or a password, percent-encode all characters except letters and digits"


def default_home() -> Path:
    """/var/lib/nebula for root; else a folder in the user's home."""
    return Path("/var/lib/nebula") if os.geteuid() == 0 else Path.home() / ".local/share/nebula"


def node_name() -> str:
    """This host's name, changed to a valid node id."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower().split(".")[0]).strip("-")
    return name[:63] or "node"


def _directory_url(url: str) -> str:
    if not re.fullmatch(r"http://[^\s;%,@]+/", url):
        raise ValueError("must be an http:// URL that ends in / and has no user, space, ';', '%' or ','")
    return url


def _folders(paths: str) -> str:
    wrong = [path for path in paths.split(":") if not path.startswith("/") or Path(path) == Path("/")]
    if wrong:
        raise ValueError("must be absolute paths of folders other than /, separated by ':'")
    return paths


def _host(name: str) -> str:
    try:
        name.encode("idna")
    except UnicodeError:
        raise ValueError("must be an address of this host, or a name of it") from None
    return name


def _names(names: str) -> str:
    for name in filter(None, (each.strip() for each in names.split(","))):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", name):
            raise ValueError("must be host names without ports, separated by commas")
    return names


def _origins(origins: str) -> str:
    for origin in filter(None, (each.strip() for each in origins.split(","))):
        if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
            raise ValueError("must be origins like https://console.example, separated by commas")
    return origins


def _hosts(setting: str) -> str:
    ImageHosts.of(setting)
    return setting


def _networks(setting: str) -> str:
    for each in filter(None, setting.split(",")):
        try:
            ipaddress.ip_network(each.strip())
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
    return setting


def _servers(urls: str) -> str:
    """Check the URLs strictly: a part of a password that was parsed as a host or a port would appear in errors."""
    for url in urls.split(","):
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            wrong = parts.scheme not in ("nats", "tls") or not parts.hostname or parts.port == 0
            wrong = wrong or parts.path not in ("", "/") or bool(parts.query or parts.fragment)
        except ValueError:
            wrong = True
        if wrong:
            raise ValueError(f"must be URLs like nats://HOST:4222, separated by commas; {ENCODED}")
    return urls


def _dsn(dsn: str) -> str:
    """Check the DSN here, because libraries quote a wrong DSN, with its password, in their errors."""
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    try:
        ports = str(conninfo_to_dict(dsn).get("port") or "").split(",")
        wrong = not all(port == "" or (port.isascii() and port.isdecimal() and int(port) < 65536) for port in ports)
    except Error:
        wrong = True
    if wrong:
        raise ValueError(f"must be like postgresql://USER:PASSWORD@HOST:5432/DATABASE; {ENCODED}") from None
    return dsn


class Common(BaseSettings):
    """The settings of all processes."""

    model_config = SettingsConfigDict(env_prefix="NEBULA_", frozen=True, extra="ignore", hide_input_in_errors=True)

    #: folder of all local state
    home: Path = Field(default_factory=default_home)
    #: URLs of the NATS servers, separated by commas
    nats_url: Annotated[str, AfterValidator(_servers)] = "nats://127.0.0.1:4222"
    #: user and password of this role on the bus, if the server requires them
    nats_user: str | None = None
    nats_password: str | None = None
    #: file with the authority (PEM) of the NATS servers' certificates: the connection is then encrypted, or refused
    nats_ca: Path | None = None
    #: file with the credential of this role on the bus: a JWT and its seed, as `nsc` writes them; instead of a user
    nats_creds: Path | None = None
    #: number of replicas of each stream: 1 on one server, 3 in a cluster
    nats_replicas: int = Field(default=1, ge=1, le=5)
    #: folders for image sources that are paths, separated by ':'; default: `images` and `cache` in the home
    image_paths: Annotated[str, AfterValidator(_folders)] | None = None
    #: addresses, networks and names (*.lan), separated by commas, from which images may be fetched, besides public ones
    image_hosts: Annotated[str, AfterValidator(_hosts)] = ""
    #: ports of the platform's servers that are not the default ones, separated by commas
    platform_ports: Annotated[str, Field(pattern=r"^([0-9]{1,5}(,[0-9]{1,5})*)?$")] = ""
    #: warn if a node's clock differs by more seconds from this process's clock
    clock_offset_seconds: float = Field(default=2.0, gt=0, le=86400)
    #: debug, info, warning or error
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    #: MiB after which a log file of `nebula up` is rotated; four old copies of each are kept
    log_mib: float = Field(default=20.0, gt=0, le=10_000)
    #: text for people, json for machines
    log_format: Annotated[str, Field(pattern="^(text|json)$")] = "text"

    @property
    def nats_urls(self) -> list[str]:
        return [url.strip() for url in self.nats_url.split(",")]

    @property
    def image_folders(self) -> tuple[Path, ...]:
        """The folders for sources of images. Not the whole home: the disks of VMs and the master key are there."""
        if self.image_paths is None:
            return (self.home / "images", self.home / "cache")
        return tuple(Path(path) for path in self.image_paths.split(":"))

    @property
    def fetch_from(self) -> ImageHosts:
        """The hosts from which images may be fetched; never the platform's own servers."""
        ports = {int(port) for port in self.platform_ports.split(",") if port}
        ports |= {int(port) for port in re.findall(r":([0-9]{1,5})(?=[/,]|$)", self.nats_url)}
        return ImageHosts.of(self.image_hosts, ports)


class Database(Common):
    #: DSN of the Postgres database with the read models
    postgres_dsn: Annotated[str, AfterValidator(_dsn)] = "postgresql://nebula@127.0.0.1:5432/nebula"


class Vaulted(Common):
    #: file with the key (32 bytes, base64) that wraps all keys of VMs; created at first use
    master_key_file: Path | None = None

    @property
    def master_key_path(self) -> Path:
        return self.master_key_file or self.home / "master.key"


class Listening(Common):
    """The limits for clients of a process that serves HTTP."""

    #: maximum number of connections in total, and from one address
    http_connections: int = Field(default=2048, ge=1, le=100_000)
    http_connections_per_address: int = Field(default=512, ge=1, le=100_000)
    #: maximum KiB of a request line and its headers
    http_header_kib: int = Field(default=16, ge=4, le=1024)
    #: maximum seconds for the headers of a request, for its body, and between two requests of a connection
    http_header_seconds: float = Field(default=10.0, gt=0, le=3600)
    http_body_seconds: float = Field(default=60.0, gt=0, le=3600)
    http_idle_seconds: float = Field(default=75.0, gt=0, le=3600)

    @property
    def http_limits(self) -> Limits:
        return Limits(
            connections=self.http_connections,
            connections_per_address=self.http_connections_per_address,
            head=self.http_header_kib * 1024,
            head_seconds=self.http_header_seconds,
            body_seconds=self.http_body_seconds,
            idle_seconds=self.http_idle_seconds,
        )


class Oidc(Common):
    #: issuer of OIDC tokens that are accepted, and the audience that they have to be for
    oidc_issuer: Annotated[str, AfterValidator(issuer)] | None = None
    oidc_audience: str | None = Field(default=None, min_length=1, max_length=255)
    #: client for `nebula login`, and the scopes that it asks for, separated by commas
    oidc_client_id: str | None = Field(default=None, min_length=1, max_length=255)
    oidc_scopes: str = Field(default="openid,offline_access", max_length=1000)
    #: claim that names the principal
    oidc_claim: str = Field(default="sub", min_length=1, max_length=255)
    #: claim that gives roles, as JSON: {"claim": "groups", "map": {"ops": "operator", "web": ["member@web"]}}
    oidc_roles: OidcRoles | None = None
    #: certificates of the issuer's CA, instead of those that this host trusts
    oidc_ca_file: Path | None = None


class Keyed(Common):
    #: file with the keys of the events' MACs; handlers create it at their first start, all readers of the log need it
    event_keys_file: Path | None = None

    @property
    def event_keys_path(self) -> Path:
        return self.event_keys_file or self.home / "event.keys"


class GatewaySettings(Database, Listening, Oidc, Keyed):
    #: address and port of the HTTP API
    http_host: Annotated[str, AfterValidator(_host)] = "127.0.0.1"
    http_port: int = Field(default=8700, ge=0, le=65535)
    #: host names of the HTTP API besides this host's own, and origins (https://console.example) of web pages on other
    #: sites that may call it, each separated by commas
    http_names: Annotated[str, AfterValidator(_names)] = ""
    http_origins: Annotated[str, AfterValidator(_origins)] = ""
    #: tokens: every caller needs one; none: only loopback is served, and all callers are the operator `local`
    auth: Literal["tokens", "none"] = "tokens"
    #: file of break-glass tokens, which work without the log: one `name sha256-of-token [role]` per line
    tokens_file: Path | None = None
    #: files of the certificate with which the API is served, and of its key, if that is in another file (PEM)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: file with the authority (PEM) of that certificate, for hosts that join
    tls_ca: Path | None = None
    #: a proxy in front of the API does TLS, so that it may listen without it on an address that others can reach
    tls_proxy: bool = False
    #: file with the key (32 bytes, base64) of the log's digests of tokens, which all gateways share; made at first use
    pepper_file: Path | None = None
    #: seconds for which tokens of the log are accepted after this gateway last read the log to its end
    identity_seconds: float = Field(default=5.0, ge=2, le=300)
    #: addresses and networks of proxies, separated by commas, whose `X-Forwarded-For` names the client
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    #: refused calls per minute of one address (401) or one credential (403); further ones are 429
    refusals_per_minute: int = Field(default=60, ge=1, le=1_000_000)

    @property
    def pepper_path(self) -> Path:
        return self.pepper_file or self.home / "pepper.key"


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
    seed_url: Annotated[str, AfterValidator(_directory_url)] | None = None
    #: seconds without a heartbeat after which a node is lost
    node_timeout: float = Field(default=15.0, ge=0.5, le=3600)
    #: seconds without a heartbeat after which another daemon may get the lease of a node that has no VMs
    lease_seconds: float = Field(default=15.0, ge=1, le=3600)
    #: URLs of the NATS servers as nodes on other hosts reach them; default: NEBULA_NATS_URL
    node_nats_url: Annotated[str, AfterValidator(_servers)] | None = None
    #: hours for which the credential of a node is valid; it is renewed when a third of them has passed
    node_credential_hours: float = Field(default=720.0, ge=0.001, le=366 * 24)
    #: seconds between two signed checkpoints while new events come
    checkpoint_seconds: float = Field(default=60.0, ge=1, le=86400)
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


class AuthoritySettings(Common):
    """The authority of a bus whose server and roles are started one by one. Its home has all keys of the bus."""

    #: folder in which a folder of each role gets the files that the role needs
    bus_files: Path = Path("/var/lib/nebula-bus")
    #: folder in which the NATS server keeps the accounts, as the server sees it
    bus_resolver: Path = Path("/var/lib/nats/accounts")
    #: log of the NATS server, in which it says which messages it refuses; without it they are not recorded
    bus_log: Path | None = None


class ProjectionsSettings(Database, Vaulted, Keyed):
    pass


class GuestDataSettings(Listening):
    #: address and port of the cloud-init data source, which only guests should be able to reach
    seed_host: Annotated[str, AfterValidator(_host)] = "192.168.122.1"
    seed_port: int = Field(default=8775, ge=0, le=65535)
    #: a guest needs one connection at a time; one guest must not use up those of the others
    http_connections_per_address: int = Field(default=32, ge=1, le=100_000)

    @property
    def copies_dir(self) -> Path:
        """The folder of the sealed copies of seeds."""
        return self.home / "guest-data"


class NodeSettings(Common):
    #: id of this node, and its region
    node: str = Field(default_factory=node_name, pattern=f"^{SLUG}$")
    region: str = Field(default="default", pattern=f"^{SLUG}$")
    #: URI of the hypervisor; test:///default is libvirt's in-memory test driver
    libvirt_uri: str = "qemu:///system"
    #: libvirt network of the guests
    network: str = "default"
    #: rules of iptables and ebtables protect this host, and projects from each other; without them no guest starts
    guest_firewall: bool = True
    #: base URL of the cloud-init data source for guests of this node
    seed_url: Annotated[str, AfterValidator(_directory_url)] = "http://192.168.122.1:8775/"
    #: capacity of this host for VMs; default: all of it (disk: the size of the file system of the data folder)
    vcpus: int | None = Field(default=None, ge=1)
    memory_mib: int | None = Field(default=None, ge=64)
    disk_gib: int | None = Field(default=None, ge=1)
    #: seconds between two heartbeats, and between two checks of all domains
    heartbeat_seconds: float = Field(default=2.0, gt=0, le=60)
    resync_seconds: float = Field(default=2.0, gt=0, le=600)
    #: maximum seconds of one call to libvirt
    libvirt_deadline: float = Field(default=60.0, gt=0, le=600)
    #: maximum number of domains that are started concurrently, for example after a boot of the host
    parallel_starts: int = Field(default=8, ge=1, le=32)
    #: GiB of base images that are cached, in addition to those that disks need; 0 for no limit
    image_cache_gib: float = Field(default=50.0, ge=0)
    #: format of base images: raw (a qcow2 is converted), or the format of their source
    image_base: Literal["raw", "source"] = "raw"
    #: folder for images, disks and console logs
    node_data: Path | None = None
    #: file with the key of this node; a daemon that has it accepts no wanted document without a MAC
    node_key_file: Path | None = None
    #: get the lease of this node, although it belongs to a daemon on another folder, whose disks are lost
    take_over: bool = False

    @property
    def data_dir(self) -> Path:
        return self.node_data or self.home / "node"

    @property
    def node_key_path(self) -> Path:
        return self.node_key_file or self.data_dir / "node.key"


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
    #: file with the root of the nodes' keys, if there is one
    node_keys_file: Path | None = None

    @property
    def node_keys_path(self) -> Path:
        return self.node_keys_file or self.home / "node.keys"

    @property
    def data_dir(self) -> Path:
        return self.node_data or self.home / f"simulated-{self.simulate_prefix}"


S = TypeVar("S", bound=Common)

#: Ends of names of settings whose value is not shown.
SECRET = ("password", "dsn", "token", "nats_url")


def read(kind: type[S], given: Mapping[str, Any] | None = None) -> S:
    """Read the settings from the environment; values `given` by name take precedence.

    If any value is wrong, it prints all wrong ones and exits with status 2.
    """
    try:
        return kind(**(given or {}))
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = "NEBULA_" + "_".join(str(part) for part in problem["loc"]).upper()
            secret = name.lower().endswith(SECRET)
            got = "" if secret else f" (got {masked(repr(problem.get('input')))})"
            sys.stderr.write(f"nebula: {name}: {explained(problem)}{got}\n")
        raise SystemExit(2) from None
    except SettingsError as error:  # a setting that must be JSON is not
        sys.stderr.write(f"nebula: {error}\n")
        raise SystemExit(2) from None
