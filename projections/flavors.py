"""Flavors: their table and how the API shows them."""

from typing_extensions import TypedDict

from domain.flavor import FLAVOR, Flavor
from projections.aggregates import COMMON, Aggregates
from projections.times import text


class FlavorView(TypedDict):
    """A flavor as the API shows it. `project` is the only project that may use it; null: all projects may."""

    id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    project: str | None
    labels: dict[str, str]
    description: str | None
    deprecated: bool
    created_at: str
    updated_at: str
    version: int
    position: int


def view(state: Flavor, version: int, position: int) -> FlavorView:
    return {
        "id": state.id,
        "name": state.name,
        "vcpus": state.size.vcpus,
        "memory_mib": state.size.memory_mib,
        "disk_gib": state.size.disk_gib,
        "project": state.project,
        "labels": dict(sorted(state.labels.items())),
        "description": state.description or None,
        "deprecated": state.deprecated,
        "created_at": text(state.created_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


FLAVORS = Aggregates[Flavor, FlavorView](
    of=FLAVOR,
    revision=3,
    columns={"owner": lambda state: state.project},
    view=view,
    filters={"project": "(owner IS NULL OR owner = %(project)s)"},
    ddl=f"""
        CREATE TABLE flavors ({COMMON}, owner text);
        CREATE INDEX ON flavors (created) WHERE NOT deleted;
    """,
)
