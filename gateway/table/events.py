"""The reads of the log: its events, searched or as they come."""

from domain.access import EVENT_READ, SELF
from gateway.events import audit, feed
from gateway.reads.read import Read
from gateway.table.parameters import FEED, PAGED

SEARCH = ("project", "vm", "kind", "type", "actor", "operation", "from", "to", "after", "wait")

READS = (
    Read("/v1/events", EVENT_READ, audit.search, "The log, searched", (*SEARCH, *PAGED), audit.EventView, listed=True),
    Read("/v1/feed", EVENT_READ, feed.everything, "The log, as it grows", FEED),
    Read("/v1/tickets", SELF, feed.ticket, "A ticket for a feed", (), feed.TicketView, method="POST", body=feed.Ticket),
)
