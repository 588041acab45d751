"""A set of read models that lives in a schema of its own, with its own checkpoint, and the schemas of its copies."""

from dataclasses import dataclass, field

from projections.books import MODELS, Models
from projections.database import SCHEMA


@dataclass(frozen=True, slots=True)
class Shelf:
    """Read models that one writer keeps. `schema`: that of the live copy, which answers reads."""

    schema: str = SCHEMA
    models: Models = field(default=MODELS, repr=False)

    @property
    def next(self) -> str:
        """The copy of a new version, while it is built."""
        return f"{self.schema}_next"

    @property
    def old(self) -> str:
        """The copy that a new version has replaced, until nobody reads it any more."""
        return f"{self.schema}_old"

    @property
    def checked(self) -> str:
        """The replay that `verify` compares the live copy with."""
        return f"{self.schema}_verify"

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables, in the order of reports."""
        return (*(table for model in self.models for table in model.tables), "checkpoint", "schema_version")

    def label(self, table: str) -> str:
        """The name of a table in reports: those of the present have theirs alone."""
        return f"{self.schema.rpartition('_')[2]}_{table}" if self.schema != SCHEMA and table in NOW.tables else table


NOW = Shelf()
"""The read models of the present."""
