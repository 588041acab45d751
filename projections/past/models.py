"""The read models of the past. Every kind has one for nothing: it follows from its `Aggregates`."""

from projections.books import TABLES, Models
from projections.past.counts import COUNTS
from projections.past.heads import HEADS
from projections.past.moments import MOMENTS
from projections.past.operations import OPERATIONS
from projections.past.versions import read_model
from projections.reservations import RESERVATIONS
from projections.shelf import Shelf

PAST_MODELS: Models = (
    HEADS,
    RESERVATIONS,
    *(read_model(table) for table in TABLES.values()),
    OPERATIONS,
    MOMENTS,
    COUNTS,
)
PAST = Shelf("nebula_past", PAST_MODELS)
"""The read models of the past, in their own schema."""
