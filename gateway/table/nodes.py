"""The reads of nodes, besides the two that each kind has."""

from domain.access import NODE_READ
from gateway.guests import usage
from gateway.openapi.statuses import OF_A_QUESTION
from gateway.reads.read import Read
from gateway.table.parameters import FRESH

READS = (
    Read(
        "/v1/nodes/{node}/usage",
        NODE_READ,
        usage.of_node,
        "What a node used lately",
        (*usage.PARAMETERS, *FRESH),
        usage.UsageSeriesView,
        statuses=OF_A_QUESTION,
    ),
)
