"""Images: their table and how the API shows them."""

from typing import Any

from typing_extensions import TypedDict

from domain.image import Image, ImagePhase, evolve
from projections.aggregates import COMMON, Aggregates
from projections.times import utc
from runtime.urls import shown


class ImageView(TypedDict):
    """An image as the API shows it. Format, sizes (bytes) and in any case sha256 are known once it is available.

    `visibility` is `public`, or `project`: then only the VMs of `project` can be made from it.
    """

    id: str
    name: str
    phase: str
    source: str
    sha256: str | None
    sha512: str | None
    distribution: str | None
    release: str | None
    architecture: str
    description: str | None
    visibility: str
    project: str | None
    format: str | None
    size_bytes: int | None
    virtual_size_bytes: int | None
    firmware: str
    seed: str
    fetch: str
    failure: str | None
    created_at: str
    updated_at: str
    version: int
    position: int


def view(state: dict[str, Any], version: int, position: int) -> ImageView:
    return {
        "id": state["id"],
        "name": state["name"],
        "phase": state["phase"],
        "source": shown(state["source"]),
        "sha256": state.get("sha256"),
        "sha512": state.get("sha512"),
        "distribution": state.get("distribution"),
        "release": state.get("release"),
        "architecture": state.get("architecture") or "x86_64",
        "description": state.get("description"),
        "visibility": "project" if state.get("project") else "public",
        "project": state.get("project"),
        "format": state.get("format"),
        "size_bytes": state.get("size_bytes"),
        "virtual_size_bytes": state.get("virtual_size_bytes"),
        "firmware": state.get("firmware", "bios"),
        "seed": state.get("seed", "http"),
        "fetch": state.get("fetch", "platform"),
        "failure": state.get("failure"),
        "created_at": utc(state["created_at"]),
        "updated_at": utc(state["updated_at"]),
        "version": version,
        "position": position,
    }


IMAGES = Aggregates[Image](
    kind="image",
    table="images",
    model=Image,
    evolve=evolve,
    deleted=lambda state: state.phase is ImagePhase.DELETED,
    columns={
        "phase": lambda state: state.phase.value,
        "owner": lambda state: state.project,
        "distribution": lambda state: state.distribution,
        "release": lambda state: state.release,
        "architecture": lambda state: state.architecture,
    },
    view=view,
    filters={
        "phase": "phase = %(phase)s",
        "project": "(owner IS NULL OR owner = %(project)s)",
        "distribution": "distribution = %(distribution)s",
        "release": "release = %(release)s",
        "architecture": "architecture = %(architecture)s",
    },
    ddl=f"""
        CREATE TABLE images (
            {COMMON}, phase text NOT NULL, owner text, distribution text, release text, architecture text NOT NULL
        );
        CREATE INDEX ON images (created) WHERE NOT deleted;
    """,
)
