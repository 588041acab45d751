"""The guest-data of a host that joined asks on subjects of its own node only, and gets answers there."""

import asyncio
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError, TimeoutError as NatsTimeout

from projections.guest_data.asker import Asker, NoAnswer
from runtime import subjects
from runtime.bus import bus, replies
from runtime.bus.accounts import claims, credentials
from runtime.bus.accounts.jwt import claims as said, signed
from runtime.bus.accounts.table import GUEST_DATA, OF_ANY_NODE, ROLES
from tests.bus_accounts.conftest import Guarded

OF_NODE = (subjects.guest_seed, subjects.guest_ready, subjects.guest_seeds_held)
REFUSED = (NatsTimeout, NoRespondersError, asyncio.TimeoutError)


async def projections_hear(guarded: Guarded) -> list[str]:
    """The subjects of what projections are asked; each question is answered."""
    heard: list[str] = []

    async def note(msg: Msg) -> None:
        heard.append(msg.subject)
        await msg.respond(replies.accepted({"digests": []}))

    nc = guarded.connections["projections"]
    for subject in (*OF_ANY_NODE, *(of("*") for of in OF_NODE)):
        await nc.subscribe(subject, queue="projections", cb=note)
    await nc.flush()
    return heard


async def test_it_asks_for_its_node_only(guarded: Guarded) -> None:
    heard = await projections_hear(guarded)
    guarded.authority.renew(GUEST_DATA, "n1")
    nc = await bus.connect(guarded.settings("guest-data-n1"), "guest-data", silent=True)
    for of in OF_NODE:
        await nc.request(of("n1"), b"{}", timeout=5)
    for subject in (*OF_ANY_NODE, *(of("n2") for of in OF_NODE), *(of("*") for of in OF_NODE)):
        with pytest.raises(REFUSED):
            await nc.request(subject, b"{}", timeout=0.2)
    assert heard == [of("n1") for of in OF_NODE]
    await Asker(nc).invalid(())
    assert heard[-1] == subjects.guest_seeds_held("n1")
    await nc.close()


async def test_nobody_else_asks_for_the_node(guarded: Guarded) -> None:
    """Not even the node itself, nor guest-data of the platform's own host."""
    heard = await projections_hear(guarded)
    for name in ("node-n1", "simulation", "gateway", "handlers", GUEST_DATA):
        nc = await bus.connect(guarded.settings(name), name, silent=True)
        for of in OF_NODE:
            with pytest.raises(REFUSED):
                await nc.request(of("n1"), b"{}", timeout=0.2)
        await nc.close()
    assert heard == []
    await Asker(guarded.connections[GUEST_DATA]).invalid(())
    assert heard == [subjects.GUEST_SEEDS_HELD]


async def test_a_credential_of_before_is_used_until_it_is_renewed(guarded: Guarded) -> None:
    """An earlier version gave the right to ask for guests of any node. New projections answer that, too."""
    heard = await projections_hear(guarded)
    guarded.authority.renew(GUEST_DATA, "n1")
    file = guarded.authority.file("guest-data-n1")
    renewed, (jwt, key) = file.read_text(), credentials.parts(file)
    before: Any = said(jwt)
    nats = dict(before["nats"])
    nats["tags"] = [tag for tag in nats["tags"] if not tag.startswith("guests:")]
    nats["pub"] = {"allow": list(claims.publishes(ROLES[GUEST_DATA]))}
    by = guarded.authority._signers[ROLES[GUEST_DATA].account]
    credentials.write(file, signed("guest-data-n1", key.public, nats, by, expires=int(before["exp"]) - 60), key)
    nc = await bus.connect(guarded.settings("guest-data-n1"), "guest-data", silent=True)
    asker = Asker(nc)
    await asker.invalid(())
    file.write_text(renewed)
    assert await nc._renewed.change()
    await asker.invalid(())
    assert heard == [subjects.GUEST_SEEDS_HELD, subjects.guest_seeds_held("n1")]
    await nc.close()


async def test_without_projections_of_this_version_there_is_no_answer(guarded: Guarded) -> None:
    """And so guest-data goes on with its copies."""
    guarded.authority.renew(GUEST_DATA, "n1")
    nc = await bus.connect(guarded.settings("guest-data-n1"), "guest-data", silent=True)
    with pytest.raises(NoAnswer):
        await Asker(nc).invalid(())
    await nc.close()
