"""Tags: their table and how the API shows them."""

from domain.tag import TAG, Tag
from projections.aggregates import COMMON, Aggregates
from projections.projects import NamedView, named

TAGS = Aggregates[Tag, NamedView](
    of=TAG,
    revision=9,
    columns={},
    view=named,
    ddl=f"""
        CREATE TABLE tags ({COMMON});
        CREATE INDEX ON tags (created) WHERE NOT deleted;
    """,
)
