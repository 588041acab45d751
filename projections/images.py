"""Images: their table and how the API shows them."""

from typing_extensions import TypedDict

from domain.image import Image
from domain.image.kind import IMAGE
from projections.aggregates import COMMON, Aggregates
from projections.times import text
from runtime.text.urls import shown


class ImageView(TypedDict):
    """An image as the API shows it. Format, sizes (bytes) and sha256 are known once it is available.

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


def view(state: Image, version: int, position: int) -> ImageView:
    return {
        "id": state.id,
        "name": state.name,
        "phase": state.phase.value,
        "source": shown(state.source),
        "sha256": state.sha256,
        "sha512": state.sha512,
        "distribution": state.distribution,
        "release": state.release,
        "architecture": state.architecture or "x86_64",
        "description": state.description,
        "visibility": "project" if state.project else "public",
        "project": state.project,
        "format": state.format,
        "size_bytes": state.size_bytes,
        "virtual_size_bytes": state.virtual_size_bytes,
        "firmware": state.firmware.value,
        "seed": state.seed.value,
        "fetch": state.fetch.value,
        "failure": state.failure,
        "created_at": text(state.created_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


IMAGES = Aggregates[Image, ImageView](
    of=IMAGE,
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
