"""Wait for operations to end."""

import asyncio
from collections.abc import Mapping
from typing import Any

from domain.operation import ENDED
from eventstore.log.envelope import Ref
from gateway.state import Gateway
from projections import aggregates, operation_rows
from projections.books import TABLES
from projections.database import ReadModelsUnavailable
from projections.operation_rows import OperationView


def has_ended(operation: OperationView) -> bool:
    return operation["status"] in ENDED


async def ended(gateway: Gateway, operation: str, seconds: float) -> tuple[OperationView | None, int]:
    """The operation when it has ended, or its state after so many seconds; and the log position of the rows.

    The caller may see it.

    Raises ReadModelsUnavailable.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with gateway.endings.waiting(operation) as waiter:
        found, position = await operation_rows.get(gateway.pool, operation, mine=None)
        if (found is not None and has_ended(found)) or gateway.stop.is_set():
            return found, position
        await asyncio.wait([waiter], timeout=max(0.0, deadline - loop.time()))
        if waiter.done() and (ended := waiter.result()) is not None:
            return ended
    return await operation_rows.get(gateway.pool, operation, mine=None)


async def ended_after(gateway: Gateway, operation: str, position: int, seconds: float) -> OperationView | None:
    """The same for a command that was accepted at `position`; None if the rows cannot be queried."""
    await gateway.position.reach(position, seconds)
    try:
        found, _ = await ended(gateway, operation, seconds)
        return found
    except ReadModelsUnavailable:
        return None


async def resource(gateway: Gateway, ref: Ref, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The resource of the caller's command from the rows; `known` if they cannot be queried, or are older."""
    table = TABLES[ref.kind]
    try:
        found, _ = await aggregates.get(gateway.pool, table, ref, mine=None)
    except ReadModelsUnavailable:
        return known
    if found is None or found.position < known["position"]:
        return known
    shown: Mapping[str, Any] = table.shown(found)
    return shown
