"""The reads of operations."""

from domain.access import OPERATION_READ
from gateway.reads import reads
from gateway.reads.read import Read
from gateway.table.parameters import PAGED, PAST
from projections.operation_rows import OperationView

READS = (
    Read("/v1/operations/{operation}", OPERATION_READ, reads.operation, "An operation", ("wait", *PAST), OperationView),
    Read(
        "/v1/operations",
        OPERATION_READ,
        reads.operations,
        "Operations, the newest first",
        ("project", "vm", "kind", "status", *PAGED),
        OperationView,
        listed=True,
    ),
)
