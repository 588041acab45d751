"""The disk that cloud-init finds by its label (NoCloud, `cidata`). It brings a guest its secret. Unlike QEMU's command
line, only the guest and root on the host can read it.

It has the URL of the guest's data, which the guest fetches (`seedfrom`). For guests that cannot do that it has the data
themselves. The URL changes with each boot, so the disk is made again for each boot.
"""

import asyncio
import contextlib
import json
import uuid
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pycdlib

from domain.contract import SeedMedium
from node_daemon.failure import Temporary, of_os_error
from runtime.files.files import put_in_place
from runtime.trust import trusted_at

if TYPE_CHECKING:
    import httpx  # it is loaded with the first disk that has the data themselves: it takes 4 MiB

#: The documents of a seed, and those that are left out if they are empty.
DOCUMENTS = ("meta-data", "user-data", "vendor-data", "network-config")
OPTIONAL = ("vendor-data", "network-config")
#: Seconds to wait for one document, and the maximum number of its bytes.
SECONDS = 10.0
MOST = 1024 * 1024
#: libvirt changes the owner of the file to QEMU's user when the domain starts.
PRIVATE = 0o600


async def make(path: Path, url: str, medium: SeedMedium) -> None:
    """Make the disk for the seed at `url`; it replaces the earlier one. Raises Permanent (disk_full) or Temporary.

    `medium`: whether the disk has the URL (HTTP) or the data.
    """
    documents = await fetch(url) if medium is SeedMedium.DISK else pointer(url)
    part = path.with_name(f"{uuid.uuid4().hex}.part")
    try:
        await asyncio.to_thread(write, part, documents)
        await asyncio.to_thread(put_in_place, part, path, PRIVATE)
    except OSError as error:
        raise of_os_error(error) from error
    finally:
        part.unlink(missing_ok=True)


def pointer(url: str) -> dict[str, bytes]:
    """The documents of a disk that names a URL. cloud-init takes the disk only if it also has empty user-data."""
    return {"meta-data": f"dsmode: net\nseedfrom: {json.dumps(url)}\n".encode(), "user-data": b""}


async def fetch(url: str) -> dict[str, bytes]:
    """The documents at a seed URL, by name. Raises Temporary for any failure of the data source."""
    import httpx

    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False, verify=trusted_at(url)) as client:
        try:
            return {name: await document(client, url, name) for name in DOCUMENTS}
        except httpx.HTTPError as error:
            raise Temporary(f"the cloud-init data source does not answer: {error!r}") from error


async def document(client: "httpx.AsyncClient", url: str, name: str) -> bytes:
    body = bytearray()
    async with client.stream("GET", url + name) as answer:
        if answer.status_code != 200:
            raise Temporary(f"the cloud-init data source answers {answer.status_code} for {name}")
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > MOST:
                raise Temporary(f"the cloud-init data source sends more than {MOST} bytes for {name}")
    return bytes(body)


def write(path: Path, documents: dict[str, bytes]) -> None:
    """Write an ISO 9660 image with these files; long names are stored with Rock Ridge and Joliet. Raises OSError."""
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
