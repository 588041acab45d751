"""A node that joins gets a credential of its own from real handlers, renews it, and loses it within seconds."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from domain.contract.guest_data import SeedsUnknown
from domain.contract.joining import Joined, JoinRequest
from domain.enrollment import IssueJoinToken, RevokeEnrollment, decide, evolve
from eventstore.log.keyring import Keyring
from eventstore.log.store import EventStore
from handlers.apply import apply, manager, now
from handlers.nodes.joining import ref
from node_daemon.membership.credentials import Files, applied, proven_keys
from node_daemon.membership.node_key import node_key
from node_daemon.membership.renewal import renew
from projections.guest_data.asker import Asker
from runtime import subjects
from runtime.bus import bus, guest_credentials, replies, requests
from runtime.bus.accounts import credentials, revoking
from runtime.bus.guest_credentials import GuestFiles
from runtime.bus.requests import Patience
from runtime.node_keys import node_keys
from runtime.random_id import random_uuid
from runtime.settings import GuestDataSettings, NodeSettings
from runtime.tasks.patience import CannotRun
from tests.bus_accounts.conftest import Guarded, handlers_process

PATIENCE = Patience(5.0, in_all=30.0, nobody=30.0)


@pytest.fixture
async def handlers(guarded: Guarded) -> AsyncIterator[Guarded]:
    """Handlers as a process, and the authority that they ask to revoke."""
    await revoking.serve(guarded.connections["authority"], guarded.connections["system"], guarded.authority)
    async with handlers_process(guarded):
        yield guarded


async def decided(guarded: Guarded, node: str, command: Any) -> None:
    store = EventStore(guarded.connections["handlers"], Keyring(guarded.home / "event.keys"))
    await apply(store, ref(node), decide, evolve, command, manager("test"))


async def joined(guarded: Guarded, home: Path, node: str) -> Files:
    """What a host stores that has joined through the gateway's account."""
    token = f"nbj_{node}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(token.encode()).hexdigest()
    words = {"operation": random_uuid(), "fingerprint": "f"}
    await decided(guarded, node, IssueJoinToken(enrollment=node, at=now(), digest=digest, **words))
    files = Files(home)
    made = files.pending(digest)
    keys = proven_keys(node, digest, made.seed, made.guest)
    body = JoinRequest(node=node, token=token, **keys).model_dump_json().encode()
    gateway = guarded.connections["gateway"]
    answer = await requests.request(gateway, subjects.JOIN, body, PATIENCE, Joined.model_validate)
    files.store(answer, made.seed, "https://platform", answer.nats_url, guest=made.guest)
    return files


def settings(home: Path) -> NodeSettings:
    return applied(NodeSettings(home=home))


async def test_a_node_joins_renews_and_is_cut_off(handlers: Guarded, tmp_path: Path) -> None:
    home = tmp_path / "host"
    files = await joined(handlers, home, "n7")
    mine = settings(home)
    assert (mine.node, mine.nats_url) == ("n7", handlers.server.url)
    node = await bus.connect(mine, "node-n7")
    held = files.held()
    assert held is not None
    before = files.creds.read_text()
    key = node_key(mine)
    assert key == node_keys(handlers.home / "node.keys").of("n7")
    assert files.node_key.stat().st_mode & 0o777 == 0o600
    renewed = await renew(node, files, held)
    assert renewed.keyed and node_key(settings(home)) == key
    assert renewed.public_key == held.public_key and files.creds.read_text() != ""
    again = await bus.connect(settings(home), "node-n7")
    await again.close()
    await node.flush()
    assert node.is_connected and before

    words = {"operation": random_uuid(), "fingerprint": "f"}
    await decided(handlers, "n7", RevokeEnrollment(enrollment="n7", at=now(), **words))
    with pytest.raises(CannotRun, match="revoked"):
        await asyncio.wait_for(node.until_ended(), 20)
    with pytest.raises(CannotRun, match="revoked"):
        await bus.connect(settings(home), "node-n7")


def guest_settings(home: Path) -> GuestDataSettings:
    return guest_credentials.applied(GuestDataSettings(home=home))


async def test_guest_data_of_a_node_gets_a_credential_renewed_and_revoked_with_the_nodes(
    handlers: Guarded, tmp_path: Path
) -> None:
    home = tmp_path / "host"
    files = await joined(handlers, home, "n7")
    guests, held = GuestFiles(home), files.held()
    assert held is not None
    said = credentials.read(guests.creds)
    assert (said.name, said.inbox) == ("guest-data-n7", "_INBOX.guest-data-n7")
    assert said.public != held.public_key and said.expires == credentials.read(files.creds).expires
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (guests.creds, guests.place))

    projections = handlers.connections["projections"]

    async def answer(msg: Msg) -> None:
        await msg.respond(replies.accepted(SeedsUnknown(digests=()).model_dump()))

    await projections.subscribe(subjects.guest_seeds_held("*"), cb=answer)
    nc = await bus.connect(guest_settings(home), "guest-data")
    assert await Asker(nc).invalid(()) == ()
    with pytest.raises(requests.Unanswered):  # it is not the node
        await requests.request(nc, subjects.renew("n7"), b"{}", Patience(1.0), Joined.model_validate)

    guests.creds.unlink()
    node = await bus.connect(settings(home), "node-n7")
    await renew(node, files, held)
    assert credentials.read(guests.creds).public == said.public
    await (await bus.connect(guest_settings(home), "guest-data")).close()
    await node.close()

    words = {"operation": random_uuid(), "fingerprint": "f"}
    await decided(handlers, "n7", RevokeEnrollment(enrollment="n7", at=now(), **words))
    with pytest.raises(CannotRun, match="revoked"):
        await asyncio.wait_for(nc.until_ended(), 20)
    with pytest.raises(CannotRun, match="revoked"):
        await bus.connect(guest_settings(home), "guest-data")


async def test_the_environment_takes_precedence_for_guest_data(handlers: Guarded, tmp_path: Path) -> None:
    await joined(handlers, tmp_path, "n7")
    given = GuestDataSettings(home=tmp_path, nats_creds=tmp_path / "mine.creds")
    assert guest_credentials.applied(given) == given
    elsewhere = guest_credentials.applied(GuestDataSettings(home=tmp_path, nats_url="nats://10.0.0.9:4222"))
    assert (elsewhere.nats_url, elsewhere.nats_creds) == ("nats://10.0.0.9:4222", GuestFiles(tmp_path).creds)


async def test_a_host_that_had_a_node_key_does_not_start_without_it(handlers: Guarded, tmp_path: Path) -> None:
    files = await joined(handlers, tmp_path / "host", "n7")
    files.node_key.unlink()
    with pytest.raises(CannotRun, match="with the key of this node"):
        node_key(settings(tmp_path / "host"))


async def test_a_later_join_ends_the_earlier_key(handlers: Guarded, tmp_path: Path) -> None:
    await joined(handlers, tmp_path / "first", "n7")
    first = await bus.connect(settings(tmp_path / "first"), "node-n7")
    await joined(handlers, tmp_path / "second", "n7")
    second = await bus.connect(settings(tmp_path / "second"), "node-n7")
    with pytest.raises(CannotRun, match="revoked"):
        await asyncio.wait_for(first.until_ended(), 20)
    await second.flush()
    assert second.is_connected
    await second.close()


async def test_a_node_renews_for_itself_only(handlers: Guarded, tmp_path: Path) -> None:
    await joined(handlers, tmp_path / "one", "n7")
    other = await joined(handlers, tmp_path / "two", "n8")
    node = await bus.connect(settings(tmp_path / "one"), "node-n7")
    theirs = other.held()
    assert theirs is not None
    with pytest.raises(requests.Unanswered):
        await renew(node, other, theirs)
    await node.close()
