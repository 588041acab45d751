"""Tags: their table and how the API shows them."""

from domain.named import Named
from domain.tag import Tag, evolve
from projections.aggregates import COMMON, Aggregates
from projections.projects import named

TAGS: Aggregates[Tag] = Aggregates[Named](
    kind="tag",
    table="tags",
    revision=7,
    model=Named,
    evolve=evolve,
    deleted=lambda state: state.deleted,
    columns={},
    view=named,
    ddl=f"""
        CREATE TABLE tags ({COMMON});
        CREATE INDEX ON tags (created) WHERE NOT deleted;
    """,
)
