"""Images: their table and how the API shows them."""

from typing import Any

from typing_extensions import TypedDict

from domain.image import Image, ImagePhase, evolve
from projections.aggregates import COMMON, Aggregates
from projections.times import utc


class ImageView(TypedDict):
    """An image as the API shows it. Format and sizes (bytes) are known once it is available."""

    id: str
    name: str
    phase: str
    source: str
    sha256: str
    format: str | None
    size_bytes: int | None
    virtual_size_bytes: int | None
    firmware: str
    seed: str
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
        "source": state["source"],
        "sha256": state["sha256"],
        "format": state.get("format"),
        "size_bytes": state.get("size_bytes"),
        "virtual_size_bytes": state.get("virtual_size_bytes"),
        "firmware": state.get("firmware", "bios"),
        "seed": state.get("seed", "http"),
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
    columns={"phase": lambda state: state.phase.value},
    view=view,
    filters={"phase": "phase = %(phase)s"},
    ddl=f"""
        CREATE TABLE images ({COMMON}, phase text NOT NULL);
        CREATE INDEX ON images (created) WHERE NOT deleted;
    """,
)
