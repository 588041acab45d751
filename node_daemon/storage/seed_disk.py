"""A disk with what cloud-init is to know (NoCloud, label `cidata`), for guests that cannot ask for it over HTTP.

Its content is what the data source says at the VM's own seed URL: there is no second truth. That URL is another one at
each boot, so the disk is made anew for each.
"""

import asyncio
import contextlib
import uuid
from io import BytesIO
from pathlib import Path

import httpx
import pycdlib

from node_daemon.failure import Temporary, of_os_error
from runtime.files.files import put_in_place

#: The documents of a seed; those that may be left out where there is nothing in them.
DOCUMENTS = ("meta-data", "user-data", "vendor-data", "network-config")
OPTIONAL = ("vendor-data", "network-config")
#: Seconds for one document, and the bytes it may have.
SECONDS = 10.0
MOST = 1024 * 1024
#: libvirt hands it to QEMU's user when the domain starts.
PRIVATE = 0o600


async def make(path: Path, url: str) -> None:
    """Make the disk from the seed at `url`, in place of the one before. Raises Permanent (disk_full) or Temporary."""
    documents = await fetch(url)
    part = path.with_name(f"{uuid.uuid4().hex}.part")
    try:
        await asyncio.to_thread(write, part, documents)
        await asyncio.to_thread(put_in_place, part, path, PRIVATE)
    except OSError as error:
        raise of_os_error(error) from error
    finally:
        part.unlink(missing_ok=True)


async def fetch(url: str) -> dict[str, bytes]:
    """The documents at a seed URL by name. Raises Temporary: whatever is wrong with the data source may pass."""
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        try:
            return {name: await document(client, url, name) for name in DOCUMENTS}
        except httpx.HTTPError as error:
            raise Temporary(f"the cloud-init data source does not answer: {error!r}") from error


async def document(client: httpx.AsyncClient, url: str, name: str) -> bytes:
    body = bytearray()
    async with client.stream("GET", url + name) as answer:
        if answer.status_code != 200:
            raise Temporary(f"the cloud-init data source answers {answer.status_code} for {name}")
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MOST:
                raise Temporary(f"the cloud-init data source says more than {MOST} bytes as {name}")
    return bytes(body)


def write(path: Path, documents: dict[str, bytes]) -> None:
    """An ISO 9660 image of these files; its long names are in Rock Ridge and in Joliet."""
    path.touch(PRIVATE)
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    with contextlib.closing(image):
        for name, content in documents.items():
            if content or name not in OPTIONAL:
                short = name.upper().replace("-", "_")
                image.add_fp(BytesIO(content), len(content), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
        with path.open("wb") as file:
            image.write_fp(file)
