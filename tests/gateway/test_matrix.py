"""Each role tries each call of the API: in its project, in another one, where there is none, and in the cloud.

The calls are those of the gateway's tables, so a new one is tried as well. What is right follows from `domain.access`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.commands.actions import ACTIONS
from gateway.table.reads import READS
from runtime.local.servers import Postgres
from tests.gateway.matrix import CALLERS, CALLS, World, expected, outcome, together, tries, world
from tests.gateway.platform import platform


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> AsyncIterator[World]:
    home: Path = tmp_path_factory.mktemp("matrix")
    async with platform(home, postgres) as api, world(api) as made:
        yield made


def test_every_call_is_tried_somewhere(there: World) -> None:
    assert {a.call.path for a in tries(there.ids)} == {call.path for call in CALLS}
    assert {call.path for call in CALLS} >= {action.path for action in ACTIONS} | {read.path for read in READS}


@pytest.mark.parametrize("who", CALLERS)
async def test_each_role_and_each_call(there: World, who: str) -> None:
    attempts = list(tries(there.ids))
    found = await together([outcome(there, who, each) for each in attempts])
    right = [expected(CALLERS[who], each) for each in attempts]
    wrong = [
        f"{each}: {is_}, not {' or '.join(sorted(may_be))}"
        for each, is_, may_be in zip(attempts, found, right, strict=True)
        if is_ not in may_be
    ]
    assert not wrong, "\n".join(wrong)
    assert {*found} >= ({"allowed", "forbidden", "hidden"} if who not in ("auditor", "operator") else {"allowed"})
