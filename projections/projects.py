"""Projects: their table and how the API shows them."""

from typing_extensions import TypedDict

from domain.access import Role
from domain.named import Named
from domain.project import PROJECT, Project
from projections.aggregates import COMMON, Aggregates
from projections.times import text


class NamedView(TypedDict):
    """The fields that projects and tags have in common, as the API shows them."""

    id: str
    name: str
    created_at: str
    updated_at: str
    version: int
    position: int


class MemberView(TypedDict):
    """A principal that has a role in a project."""

    principal: str
    role: Role


class ProjectView(NamedView):
    """A project as the API shows it. `created_by` is the actor who created it."""

    description: str | None
    created_by: str | None
    tags: list[str]
    ssh_keys: list[str]
    members: list[MemberView]


def named(state: Named, version: int, position: int) -> NamedView:
    """The common fields of a project or a tag."""
    return {
        "id": state.id,
        "name": state.name,
        "created_at": text(state.created_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


def view(state: Project, version: int, position: int) -> ProjectView:
    return {
        **named(state, version, position),
        "description": state.description or None,
        "created_by": state.created_by,
        "tags": list(state.tags),
        "ssh_keys": list(state.ssh_keys),
        "members": [{"principal": who, "role": role} for who, role in sorted(state.members.items())],
    }


PROJECTS = Aggregates[Project, ProjectView](
    of=PROJECT,
    revision=10,
    columns={"tags": lambda state: list(state.tags)},
    view=view,
    filters={"tag": "tags @> ARRAY[%(tag)s]", "project": "id = %(project)s"},
    ddl=f"""
        CREATE TABLE projects ({COMMON}, tags text[] NOT NULL);
        CREATE INDEX ON projects (created) WHERE NOT deleted;
    """,
)
