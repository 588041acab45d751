"""The steps of `nebula demo`, in their order, and the values that they share.

Each step does what its title in `STEPS` says through the API. Then it checks the result without the API: in the guest,
in libvirt, at the disk's file, at the cloud-init data source. A failed check raises CliError.
"""

import hashlib
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path

from cli.client import output, waiting
from cli.client.client import Client, Document, path
from cli.client.command import trust_in
from cli.client.credentials import Given, target
from cli.client.errors import CliError, Refused
from cli.client.session import Output, Session, note
from cli.commands import image, replay
from cli.demo import demo_host
from cli.demo.demo_guest import FILE, Guest
from runtime.files.private import passable
from runtime.local.child import free_port
from runtime.settings import NodeSettings
from runtime.text.urls import shown

PROJECT = "demo"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
MARGIN = " " * 8
#: Seconds that one step may wait for the platform.
PATIENCE = 1800.0
#: Seconds from the guest's report until its node has seen its address.
ADDRESS_SECONDS = 60.0


class DemoSettings(NodeSettings):
    #: a platform on this host to use; without it the demo runs one of its own
    url: str | None = None
    token: str | None = None
    #: a cloud image, as a path or a URL, instead of one built from Debian's packages
    demo_image: str | None = None
    #: its checksum; computed when it is not given
    demo_image_sha256: str | None = None


class Demo:
    """One demo. `stack` ends what it started; `vm` is the VM while it exists; `traces`: its traces on the host.

    `guest` and `find_traces` ask the guest and the host; tests replace SSH and libvirt by others. `cluster`: its own
    platform is a cluster.
    """

    def __init__(
        self,
        settings: DemoSettings,
        stack: ExitStack,
        guest: Callable[[Path], Guest] = Guest,
        find_traces: Callable[[str, str], demo_host.Traces] = demo_host.traces,
        *,
        cluster: bool = False,
    ) -> None:
        self.cluster = cluster
        self.settings = settings
        self.stack = stack
        self.guest = guest(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nebula-demo-"))))
        self.find_traces = find_traces
        self.session: Session | None = None
        self.source = ("", "")
        self.image_id = ""
        self.vm: Document | None = None
        self.traces: demo_host.Traces | None = None
        self.boot_id = ""

    def get_image(self) -> None:
        given = self.settings.demo_image
        if given is None:
            from cli.local.image_build import ImageBuildError, build_debian_image

            cache = self.settings.home / "cache"
            try:
                out = cache / "debian-12.qcow2"
                built = build_debian_image("bookworm", out, progress=say, cache=cache)
            except ImageBuildError as error:
                raise CliError(str(error)) from error
            self.source = (str(built.path), built.sha256)
        elif not given.startswith(("http://", "https://")):
            local = Path(given).absolute()
            self.source = (str(local), self.settings.demo_image_sha256 or image.checksum(local))
        elif self.settings.demo_image_sha256:
            self.source = (given, self.settings.demo_image_sha256)
        else:
            local = download(given, self.settings.home / "cache")
            self.source = (str(local), image.checksum(local))
        say(f"{shown(self.source[0])}\nsha256 {self.source[1]}")

    def start_platform(self) -> None:
        url, token, home = self.settings.url, self.settings.token, self.settings.home
        if url is None:
            token = None
            if "home" not in self.settings.model_fields_set:
                home /= "demo-cluster" if self.cluster else "demo"
            url = f"{'https' if self.cluster else 'http'}://127.0.0.1:{(port := free_port())}"
            environment = {"HOME": str(home), "HTTP_PORT": str(port), "SEED_PORT": str(free_port())}
            if self.source[0].startswith("/"):
                environment["IMAGE_PATHS"] = str(Path(self.source[0]).parent)
            mine = {f"NEBULA_{name}": value for name, value in environment.items()}
            self.stack.enter_context(demo_host.platform(mine, say, cluster=self.cluster))
        else:
            say(f"using the one at {url}")
        found = target(Given(url, token), Given(), home)
        api = Client(found.url, found.token, note, found.help, trust=trust_in(found.ca))
        api.get(path("projects"))
        self.session = Session(api, Output.TABLE, PROJECT, wait=True, timeout=PATIENCE, key="", margin=MARGIN)

    def register(self) -> None:
        try:
            self.ask.api.get(path("projects", PROJECT))
            say(f"project {PROJECT} exists already")
        except Refused:
            answer = self.ask.api.send("POST", path("projects"), {"id": PROJECT, "name": "Demo"})
            waiting.operation(self.ask, answer["operation"])
            say(f"project {PROJECT} created")
        self.image_id = f"demo-{self.source[1][:12]}"
        image.ensure(self.ask, self.image_id, *self.source)
        say(f"image {self.image_id} is verified and available")
        self.tidy()

    def create(self) -> None:
        user_data = self.guest.user_data()
        say(user_data.rstrip())
        body = {"name": "demo-1", "image": self.image_id, "vcpus": 1, "memory_mib": 512, "disk_gib": 4}
        answer = self.ask.api.send("POST", self.target(), {**body, "user_data": user_data})
        self.vm = answer["vm"]
        waiting.operation(self.ask, answer["operation"])
        self.vm = waiting.vm(self.ask, PROJECT, answer["vm"]["id"], "running")
        self.traces = self.find_traces(self.settings.libvirt_uri, self.vm["id"])
        say(f"VM {self.vm['id']} runs on node {self.vm['node']}")

    def ready(self) -> None:
        self.vm = waiting.vm(self.ask, PROJECT, self.known["id"], "ready")
        say("the guest has phoned home")
        self.addressed()

    def story(self) -> None:
        self.print_story(self.known["id"])
        say(f"\naddress   {', '.join(self.known['addresses'])}")
        for key in self.known["host_keys"]:
            say(f"host key  {key['type']} {key['fingerprint']}")

    def check_guest(self) -> None:
        check(bool(self.known["addresses"]), "the VM has an address")
        self.guest.trust(self.known)
        found = self.guest.run(self.address, f"cat {FILE}")
        say("over SSH, with the key from the user-data, checked against the host key that the guest reported:")
        check(found == self.guest.marker, f"{FILE} holds {self.guest.marker}")
        printed = any(self.guest.proof_line in line for line in self.host.last_words(10_000))
        check(printed, f"its serial console says: {self.guest.proof_line}")
        self.boot_id = self.guest.run(self.address, BOOT_ID)
        say(f"boot id {self.boot_id}")

    def restart(self) -> None:
        before = self.boot_id
        address = self.address  # the guest gets the same one again, which `act` cannot know yet
        self.act("restart", {"grace_seconds": 180})
        say("waiting until it answers over SSH again")
        self.boot_id = self.guest.until(address, BOOT_ID, lambda now: now != before)
        say(f"ok: it answers again, with the same host key and a new boot id, {self.boot_id}")

    def stop(self) -> None:
        self.act("stop", {"grace_seconds": 180})
        check(self.known["phase"] == "stopped", "the VM is stopped")

    def start(self) -> None:
        self.act("start", {})
        check(self.known["phase"] == "running", "the VM is running")

    def delete(self) -> None:
        check(self.host.domain, "before: libvirt has the domain")
        check(self.host.has_disk, f"before: the disk is {self.host.disk}")
        check(self.host.has_seed, f"before: its cloud-init secret is on the disk {self.host.seed}")
        answer = self.ask.api.send("DELETE", self.target(self.known["id"]))
        waiting.operation(self.ask, answer["operation"])

    def check_deleted(self) -> None:
        vm_id, host = self.known["id"], self.host
        self.vm = None
        check(not host.domain, "the domain is gone")
        check(not host.has_disk, "the disk is gone")
        check(not host.has_seed, "the disk with its cloud-init secret is gone")
        self.print_story(vm_id)

    # ── shared by the steps ──

    @property
    def ask(self) -> Session:
        assert self.session is not None
        return self.session

    @property
    def known(self) -> Document:
        assert self.vm is not None
        return self.vm

    @property
    def host(self) -> demo_host.Traces:
        assert self.traces is not None
        return self.traces

    @property
    def address(self) -> str:
        return str(self.known["addresses"][0])

    def target(self, *parts: str) -> str:
        return path("projects", PROJECT, "vms", *parts)

    def act(self, verb: str, body: Document) -> None:
        """Send a power command, wait until it has succeeded, and return the VM."""
        answer = self.ask.api.send("POST", self.target(self.known["id"], verb), body)
        op = waiting.operation(self.ask, answer["operation"])
        self.vm = self.ask.api.get(self.target(self.known["id"]), {"min_position": op["position"]})
        say(f"operation {op['id']} succeeded at position {op['position']}")

    def addressed(self) -> None:
        """Wait until the platform knows an address of the guest; that may be a little after `ready`."""
        deadline = time.monotonic() + ADDRESS_SECONDS
        while not self.known["addresses"] and time.monotonic() < deadline:
            time.sleep(0.2)
            self.vm = self.ask.api.get(self.target(self.known["id"]))
        check(bool(self.known["addresses"]), "the platform knows its address")

    def print_story(self, vm_id: str) -> None:
        """The VM's events as a table, with the proof that none is missing."""
        story = replay.story(self.ask, vm_id)
        say(output.table(replay.timeline(self.ask, story), replay.COLUMNS))
        check(not replay.breaks(story), f"the chain of {len(story)} digests holds")

    def tidy(self) -> None:
        """Delete what an interrupted demo may have left in its project."""
        for vm in self.ask.api.pages(self.target()):
            say(f"deleting VM {vm['name']} of an earlier demo")
            answer = self.ask.api.send("DELETE", self.target(vm["id"]))
            waiting.operation(self.ask, answer["operation"])


#: Title and step, in their order.
STEPS: Sequence[tuple[str, Callable[[Demo], None]]] = (
    ("Get an image", Demo.get_image),
    ("Start a platform", Demo.start_platform),
    ("Create a project and register the image", Demo.register),
    ("Create a VM: 1 vCPU, 512 MiB, 4 GiB, with user-data", Demo.create),
    ("Wait until cloud-init in the guest has finished", Demo.ready),
    ("Show what happened, from the log", Demo.story),
    ("Ask the guest itself whether its user-data ran", Demo.check_guest),
    ("Restart it, gracefully", Demo.restart),
    ("Stop it, gracefully", Demo.stop),
    ("Start it", Demo.start),
    ("Delete it", Demo.delete),
    ("Check that only its history is left", Demo.check_deleted),
)


def say(text: str) -> None:
    """Print a note of a step."""
    for line in text.split("\n"):
        output.emit(f"{MARGIN}{line}".rstrip())


def check(holds: bool, what: str) -> None:
    """Print a fact that was checked. Raises CliError if it is false."""
    if not holds:
        raise CliError(f"this check failed: {what}")
    say(f"ok: {what}")


def download(url: str, cache: Path) -> Path:
    """The file behind a URL, fetched at its first use. Raises CliError."""
    passable(cache.parent)
    cache.mkdir(exist_ok=True)
    file = cache / f"download-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
    if not file.exists():
        say(f"downloading {shown(url)}")
        part = file.with_suffix(".part")
        try:
            urllib.request.urlretrieve(url, part)  # noqa: S310  (the URL is the user's own)
        except OSError as error:
            raise CliError(f"cannot download {shown(url)}: {error}") from error
        except (ValueError, HTTPException) as error:  # the error may repeat a part of the URL
            raise CliError(f"cannot download {shown(url)}: {type(error).__name__}") from None
        part.replace(file)
    return file
