"""The reads of the platform itself: its state, what it refused, and what hosts need to join."""

from domain.access import OPEN, STATUS_READ
from gateway.operators import authority, health, joining, refusals, status
from gateway.reads.read import Read

READS = (
    Read("/v1/status", STATUS_READ, status.status, "The state of each process and each manager", (), status.StatusView),
    Read(
        "/v1/refusals",
        STATUS_READ,
        refusals.refusals,
        "Refused calls (401 and 403), the newest first",
        ("address", "credential", "limit", "page_token"),
        refusals.RefusalView,
        listed=True,
    ),
    Read(
        "/v1/join",
        OPEN,
        joining.join,
        "Join as a node, with a join token",
        (),
        joining.JoinView,
        method="POST",
        body=joining.Join,
        statuses=(401, 409, 502),
    ),
    Read("/v1/ca", OPEN, authority.authority, "The platform's authority, in PEM", (), str, statuses=(404,)),
    Read(
        "/healthz",
        OPEN,
        health.health,
        "Whether the platform can do its work",
        (),
        health.HealthView,
        unavailable=health.HealthView,
    ),
    Read("/metrics", STATUS_READ, health.metrics, "Metrics for Prometheus", (), str),
)
