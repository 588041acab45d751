"""The guests of simulated hosts, as the platform sees them: the requests of cloud-init at each boot.

It fetches the documents of its seed and posts to the URL in vendor-data. Real cloud-init gives up after a while; this
one tries again for ever, so that a simulated cloud always converges.
"""

import asyncio
import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulated_storage import SimulatedDisks
from runtime import logs

log = logs.get(__name__)

#: Number of guests that are configured concurrently.
AT_ONCE = 4
#: Seconds to wait for one answer, and from a failure to the next try.
PATIENCE, AGAIN = 10.0, 2.0

DOCUMENTS = ("meta-data", "user-data", "vendor-data", "network-config")


_URL = re.compile(r"http://[A-Za-z0-9.:\[\]-]+/[A-Za-z0-9/_-]*phone-home")


class NotConfigured(Exception):
    """The data source gave an answer that a guest cannot use."""


@dataclass(frozen=True)
class Booted:
    """A guest that has booted and has to be configured."""

    host: SimulatedHost
    disks: SimulatedDisks
    vm: str
    boots: int
    resets: int
    seed_url: str

    @property
    def boot(self) -> tuple[int, int]:
        return (self.boots, self.resets)

    def waits(self) -> bool:
        """Whether it still runs and has not been configured in this boot."""
        return self.host.boots(self.vm) == self.boot > self.disks.configured(self.vm)


class SimulatedGuests:
    """Configures all guests of this process, AT_ONCE of them concurrently."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Booted] = asyncio.Queue()
        self._failing = False

    def up(self, booted: Booted) -> None:
        self._queue.put_nowait(booted)

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
            await asyncio.gather(*(self._serve(http) for _ in range(AT_ONCE)))

    async def _serve(self, http: httpx.AsyncClient) -> None:
        while True:
            guest = await self._queue.get()
            if not guest.waits():
                continue
            try:
                await configure(http, guest.seed_url, boot=f"{guest.vm}-{guest.boots}-{guest.resets}")
            except (NotConfigured, httpx.HTTPError, httpx.InvalidURL) as error:
                if not self._failing:
                    text = "guests cannot be configured; they will try again"
                    log.warning(text, vm=guest.vm, error=str(error) or repr(error))
                self._failing = True
                asyncio.get_running_loop().call_later(AGAIN, self.up, guest)
                continue
            if self._failing:
                log.info("guests are configured again")
            self._failing = False
            guest.disks.note_configured(guest.vm, guest.boot)


async def configure(http: httpx.AsyncClient, seed_url: str, *, boot: str) -> None:
    """Fetch the seed and phone home. Raises NotConfigured or httpx.HTTPError."""
    seed = {name: await _get(http, seed_url + name) for name in DOCUMENTS}
    instance, hostname = (text_in(seed["meta-data"], name) for name in ("instance-id", "local-hostname"))
    call = {
        "instance_id": instance,
        "boot_id": boot,
        "hostname": hostname,
        "pub_key_rsa": "N/A",
        "pub_key_ecdsa": "N/A",
        "pub_key_ed25519": host_key(instance),
    }
    answer = await http.post(url_in(seed["vendor-data"]), data=call)
    if answer.status_code != 200:
        raise NotConfigured(f"phone-home: {answer.status_code}")


async def _get(http: httpx.AsyncClient, url: str) -> str:
    answer = await http.get(url)
    if answer.status_code != 200:
        raise NotConfigured(f"{url.rsplit('/', 1)[-1]}: {answer.status_code}")
    return answer.text


def text_in(document: str, *names: str) -> str:
    """The text at the path `names` in a YAML document. Raises NotConfigured if the document has none."""
    try:
        found: Any = yaml.safe_load(document)
        for name in names:
            found = found[name]
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise NotConfigured(f"no {'.'.join(names)} in {document[:200]!r}") from error
    if not isinstance(found, str):
        raise NotConfigured(f"{'.'.join(names)} is not text in {document[:200]!r}")
    return found


def url_in(hook: str) -> str:
    """The phone-home URL in a boothook. Raises NotConfigured if there is none."""
    found = _URL.search(hook) if hook.startswith("#cloud-boothook\n") else None
    if found is None:
        raise NotConfigured(f"no boothook that phones home in {hook[:200]!r}")
    return found.group()


def host_key(instance: str) -> str:
    """The guest's SSH host key: well-formed, constant for an instance id, and without a private key."""
    fields = (b"ssh-ed25519", hashlib.sha256(instance.encode()).digest())
    raw = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return f"ssh-ed25519 {base64.b64encode(raw).decode()} root@simulated"
