"""`nebula image …`: images, from which disks are made."""

import hashlib
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli.client import output, waiting
from cli.client.client import Document, path
from cli.client.command import At, command, query
from cli.client.errors import CliError, Refused, Usage
from cli.client.session import Session, note
from cli.commands.catalog import finish
from runtime.files.unusable import sentence

app = typer.Typer(help="Images, from which disks are made.", no_args_is_help=True)

COLUMNS: output.Columns = {
    "ID": "id",
    "NAME": "name",
    "PHASE": "phase",
    "SYSTEM": lambda row: " ".join(word for word in (row.get("distribution"), row.get("release")) if word) or None,
    "ARCH": "architecture",
    "FOR": lambda row: row.get("project") or "all",
    "FORMAT": "format",
    "FIRMWARE": "firmware",
    "SIZE": lambda row: output.size(row.get("size_bytes")),
    "VIRTUAL": lambda row: output.size(row.get("virtual_size_bytes")),
    "SOURCE": "source",
    "AGE": output.age("created_at"),
}

Id = Annotated[str, typer.Argument(metavar="ID")]
#: A URL and not a path. The platform says which schemes it accepts.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class Seed(StrEnum):
    HTTP = "http"
    DISK = "disk"


class Fetch(StrEnum):
    PLATFORM = "platform"
    SOURCE = "source"


class Debian(StrEnum):
    BOOKWORM = "debian-12"
    TRIXIE = "debian-13"

    @property
    def suite(self) -> str:
        return self.name.lower()


Sha256 = Annotated[str | None, typer.Option(help="SHA-256 checksum; without one, the computed checksum is recorded.")]
Sha512 = Annotated[str | None, typer.Option(help="SHA-512 checksum; both may be given.")]
Distribution = Annotated[str | None, typer.Option(help="Such as debian.")]
Release = Annotated[str | None, typer.Option(help="Such as 12 or 24.04.")]
Arch = Annotated[
    str, typer.Option("--architecture", "--arch", help="CPUs that it is for: x86_64 (amd64) or aarch64 (arm64).")
]
Started = Annotated[
    Firmware | None, typer.Option(help="Firmware of its guests: bios (default) or uefi (default for aarch64).")
]
Description = Annotated[str | None, typer.Option(help="For people.")]
Private = Annotated[bool, typer.Option("--private", help="Only for the VMs of --project.")]


@command(app, "register")
def register(
    session: Session,
    source: Annotated[str, typer.Argument(metavar="PATH|URL", help="Its path or URL.")],
    id: Annotated[str | None, typer.Option(help="The file's name as a slug, unless given.")] = None,
    name: Annotated[str | None, typer.Option(help="The id, unless given.")] = None,
    sha256: Sha256 = None,
    sha512: Sha512 = None,
    distribution: Distribution = None,
    release: Release = None,
    architecture: Arch = "x86_64",
    description: Description = None,
    private: Private = False,
    firmware: Started = None,
    seed: Annotated[Seed, typer.Option(help="How its guests' cloud-init gets its data.")] = Seed.HTTP,
    fetch: Annotated[
        Fetch, typer.Option(help="Where nodes get it: from the platform, or from the URL or path.")
    ] = Fetch.PLATFORM,
) -> None:
    """Register an image; waits until its content and checksum have been checked."""
    local = not URL.match(source)
    if local:
        source = str(Path(source).absolute())
    image_id = id or slug(source)
    given = {
        "id": image_id,
        "name": name or image_id,
        "source": source,
        "sha256": sha256 or (checksum(Path(source)) if local and sha512 is None else None),
        "sha512": sha512,
        "distribution": distribution,
        "release": release,
        "architecture": architecture,
        "description": description,
        "project": session.project if private else None,
        "firmware": firmware,
        "seed": seed,
        "fetch": fetch,
    }
    body = {field: value for field, value in given.items() if value is not None}
    answer = session.api.send("POST", path("images"), body, key=session.key)
    finish(session, answer, COLUMNS, path("images", image_id))


@command(app, "import")
def import_(
    session: Session,
    image: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    origin: Annotated[str, typer.Option("--from", help="The http(s) URL of a qcow2 or raw disk.")],
    sha256: Sha256 = None,
    sha512: Sha512 = None,
    distribution: Distribution = None,
    release: Release = None,
    architecture: Arch = "x86_64",
    description: Description = None,
    private: Private = False,
    firmware: Started = None,
    seed: Annotated[Seed, typer.Option(help="How its guests' cloud-init gets its data.")] = Seed.HTTP,
    fetch: Annotated[
        Fetch, typer.Option(help="Where nodes get it: from the platform, or from the URL or path.")
    ] = Fetch.PLATFORM,
) -> None:
    """Import an image from a URL; shows the progress."""
    if not origin.lower().startswith(("http://", "https://")):
        raise Usage("--from must be an http(s) URL; for a path use `nebula image register`")
    register(
        session,
        origin,
        id=image,
        sha256=sha256,
        sha512=sha512,
        distribution=distribution,
        release=release,
        architecture=architecture,
        description=description,
        private=private,
        firmware=firmware,
        seed=seed,
        fetch=fetch,
    )


@query(app, "list")
def list_(
    session: Session,
    distribution: Distribution = None,
    release: Release = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", "--arch", help="The CPUs that it is for.")
    ] = None,
    at: At = None,
) -> None:
    """List all images; with --project, those that it can use."""
    wanted = {
        "project": session.project_given,
        "distribution": distribution,
        "release": release,
        "architecture": architecture,
        "at": at,
    }
    output.listing(session, session.api.pages(path("images"), wanted), COLUMNS)


@query(app, "show")
def show(session: Session, image: Id, at: At = None) -> None:
    """Show an image."""
    output.one(session, session.api.get(path("images", image), {"at": at}))


@command(app, "delete")
def delete(session: Session, image: Id) -> None:
    """Delete an image that no VM uses."""
    finish(session, session.api.send("DELETE", path("images", image), key=session.key), COLUMNS, None)


@command(app, "build")
def build(
    session: Session,
    release: Annotated[Debian, typer.Argument()],
    register: Annotated[bool, typer.Option(help="Register it under the release's name.")] = True,
) -> None:
    """Build an image from Debian's packages on this host (as root), and register it."""
    from cli.local.image_build import ImageBuildError, build_debian_image
    from runtime.settings import Common, read

    if register:
        session.api.get(path("images"), {"limit": 1})  # notice now that nobody answers, not in two minutes
    cache = read(Common).home / "cache"
    try:
        with waiting.Progress(f"building {release}") as progress:
            out = cache / f"{release}.qcow2"
            built = build_debian_image(release.suite, out, progress=progress.show, cache=cache)
    except ImageBuildError as error:
        raise CliError(str(error)) from error
    if not register:
        output.one(session, {"path": str(built.path), "sha256": built.sha256, "size_bytes": built.size_bytes})
        return
    about = {"distribution": "debian", "release": release.removeprefix("debian-")}
    image = ensure(session, release, str(built.path), built.sha256, **about)
    output.one(session, image)


def ensure(session: Session, image_id: str, source: str, sha256: str, **about: str) -> Document:
    """The image with this id and these bytes; it is registered now if it was not.

    Raises CliError if the id belongs to other bytes.
    """
    target = path("images", image_id)
    try:
        known = session.api.get(target)
    except Refused as refusal:
        if refusal.status not in (404, 410):
            raise
        known = {"phase": "deleted"}
    if known["phase"] in ("available", "verifying") and known["sha256"] != sha256:
        raise CliError(
            f"an image {image_id} exists already, with other bytes (sha256 {known['sha256']});\n"
            "  delete it first, or register this one under another --id"
        )
    if known["phase"] == "available":
        note(f"image {image_id} is registered already")
        return known
    if known["phase"] == "rejected":
        waiting.operation(session, session.api.send("DELETE", target)["operation"])
    body = {"id": image_id, "name": image_id, "source": source, "sha256": sha256, **about}
    op = waiting.operation(session, session.api.send("POST", path("images"), body, key=session.key)["operation"])
    return session.api.get(target, {"min_position": op["position"]})


def slug(source: str) -> str:
    """An id made of the file's name; of a URL only its path is used, the rest may be secret. Raises Usage."""
    try:
        name = Path(urlsplit(source).path if URL.match(source) else source).stem
    except ValueError:
        name = ""
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-")
    if not found:
        raise Usage("no id can be made from the source's file name: give --id")
    return found


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hex. Raises Usage when it cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise Usage(sentence(error, file)) from error
