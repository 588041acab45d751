"""The calls about parked messages."""

from domain.access import PARKED_MANAGE, PARKED_READ
from gateway.operators import parked
from gateway.operators.parked import ParkedSummary, ParkedView
from gateway.reads.read import Read

PARKED = "/v1/parked/{source}/{key}"

READS = (
    Read(
        "/v1/parked",
        PARKED_READ,
        parked.many,
        "Parked messages",
        ("status", "source", "limit", "page_token"),
        ParkedSummary,
        True,
    ),
    Read(PARKED, PARKED_READ, parked.one, "A parked message", (), ParkedView),
    Read(
        f"{PARKED}/retry",
        PARKED_MANAGE,
        parked.retry,
        "Put a parked message back",
        (),
        ParkedView,
        method="POST",
        statuses=(409,),
    ),
    Read(
        f"{PARKED}/drop",
        PARKED_MANAGE,
        parked.drop,
        "Close a parked message",
        (),
        ParkedView,
        method="POST",
        body=parked.Drop,
        statuses=(409,),
    ),
)
