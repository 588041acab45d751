"""The reads of the log: its events, searched or as they come."""

from domain.access import EVENT_READ, SELF
from gateway.events import audit, feed, marks, whole
from gateway.reads import diff
from gateway.reads.read import Read
from gateway.table.parameters import FEED, FRESH, PAGED

SEARCH = (
    *("project", "vm", "kind", "id", "type", "actor", "operation", "request"),
    *("from", "to", "after", "order", "wait"),
)
MARKS = ("from", "to", "buckets", "project", "vm", *FRESH)
CHANGES = ("from", "to", "project", "kind", "id", "limit", "page_token", *FRESH)

READS = (
    Read(
        "/v1/events",
        EVENT_READ,
        audit.search,
        "The log, searched",
        (*SEARCH, *PAGED),
        audit.EventView,
        listed=True,
    ),
    Read(
        "/v1/events/{event}",
        EVENT_READ,
        whole.event,
        "An event by its position, and what proves it",
        FRESH,
        whole.WholeView,
    ),
    Read("/v1/marks", EVENT_READ, marks.marks, "How much happened when: counts of events", MARKS, marks.MarksView),
    Read("/v1/diff", EVENT_READ, diff.diff, "What changed between two moments", CHANGES, diff.DiffView, listed=True),
    Read("/v1/feed", EVENT_READ, feed.everything, "The log, as it grows", FEED),
    Read("/v1/tickets", SELF, feed.ticket, "A ticket for a feed", (), feed.TicketView, method="POST", body=feed.Ticket),
)
