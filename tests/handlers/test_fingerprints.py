"""Fingerprints of requests tell repeats from others, and nothing to readers of the log."""

import hashlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from domain import tag
from domain.accepted_requests import NONE, AcceptedRequest
from domain.base import Event
from domain.named import Named
from domain.tag import CreateTag
from domain.vm import VmRequested
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Tip
from eventstore.vault.vault import Vault
from handlers.apply import now
from handlers.commands.fingerprints import Fingerprint, Fingerprints, key_id
from tests.handlers import pairs
from tests.handlers.deciders import deciding, two
from tests.handlers.platform import WriteSide, write_side

SENT = hashlib.sha256(b'POST /v1/images\n{"source":"https://h/i?sig=hunter2"}').hexdigest()
OPERATION = str(uuid.uuid4())


@pytest.fixture(scope="module")
async def side(servers_home: Path) -> AsyncIterator[WriteSide]:
    """A log without handlers: each test has its own."""
    home = servers_home / "fingerprints"
    home.mkdir()
    async with write_side(home) as made, deciding(made.nats.url, made.home):
        yield made


def name() -> str:
    return f"t-{uuid.uuid4().hex[:8]}"


async def test_the_log_tells_nothing_of_what_was_sent(side: WriteSide) -> None:
    id_, operation = name(), str(uuid.uuid4())
    await side.ok("system", "tag", "create", {"tag": id_, "name": "T"}, operation=operation, fingerprint=SENT)
    (event,) = await side.events("system", "tag", id_)
    assert SENT not in event.body.decode()
    stored = event.event.fingerprint  # type: ignore[attr-defined]
    guesses = (SENT, f"{operation}\0{SENT}", f"{operation}{SENT}")
    assert not {hashlib.sha256(guess.encode()).hexdigest()[:32] for guess in guesses} & set(stored.split("-"))


async def test_the_log_tells_nothing_of_a_token_but_whether_it_is_the_same(side: WriteSide) -> None:
    """A token that was chosen by hand can be guessed, and a digest of it tells who has guessed right."""
    said = [hashlib.sha256(token).hexdigest()[:12] for token in (b"hunter2", b"hunter2", b"correct horse")]
    stored = []
    for credential in said:
        id_ = name()
        await side.ok("system", "tag", "create", {"tag": id_, "name": "T"}, credential=credential)
        (event,) = await side.events("system", "tag", id_)
        stored.append(event.headers["ce-credential"])
    assert stored[0] == stored[1] != stored[2]
    assert not any(credential in value for credential in said for value in stored)
    key = await Vault.of(side.nc, side.home / "master.key").mac_key("requests-1")
    assert stored[0].startswith(f"hmac-{key_id(key)}-")
    fingerprint = await Fingerprints(Vault.of(side.nc, side.home / "master.key")).of("credential", said[0])
    assert fingerprint is not None
    assert fingerprint.stored not in stored, "no caller can ask for the one of somebody's token"


async def test_two_handlers_and_a_restart_agree(side: WriteSide) -> None:
    operation = str(uuid.uuid4())
    made = [await Fingerprints(Vault.of(side.nc, side.home / "master.key")).of(operation, SENT) for _ in range(2)]
    assert made[0] == made[1]
    other = await Fingerprints(Vault.of(side.nc, side.home / "master.key")).of(str(uuid.uuid4()), SENT)
    assert made[0] is not None
    assert other is not None
    assert made[0].stored != other.stored, "the same request of another operation does not look alike"


async def test_what_an_earlier_version_stored_is_still_the_same_request(side: WriteSide) -> None:
    id_, operation = name(), str(uuid.uuid4())
    ref = Ref("system", "tag", id_)
    created = CreateTag(at=now(), operation=operation, fingerprint=SENT, tag=id_, name="T")
    await side.store.append([Change(Tip(ref), tag.decide(None, created))], pairs.CONTEXT)
    args = {"tag": id_, "name": "T"}
    again = await side.ok("system", "tag", "create", args, operation=operation, fingerprint=SENT)
    assert again["replayed"]
    other = await side.ask("system", "tag", "create", args, operation=operation, fingerprint="0" * 64)
    assert other["problem"]["code"] == "idempotency_key_reused"


async def test_a_repeat_where_the_key_is_lost(side: WriteSide) -> None:
    """As after a restore without the vault: it is answered from the record."""
    id_, operation = name(), str(uuid.uuid4())
    lost = Fingerprint(operation, SENT, f"hmac-00000000-{'0' * 32}")
    created = CreateTag(at=now(), operation=operation, fingerprint=lost.stored, tag=id_, name="T")
    await side.store.append([Change(Tip(Ref("system", "tag", id_)), tag.decide(None, created))], pairs.CONTEXT)
    again = await side.ok("system", "tag", "create", {"tag": id_, "name": "T"}, operation=operation, fingerprint=SENT)
    assert again["replayed"]


def test_another_master_key_makes_another_key() -> None:
    mine = Fingerprint(OPERATION, SENT, f"hmac-11111111-{'1' * 32}")
    assert mine.matches(mine.stored)
    assert mine.matches(SENT)
    assert not mine.matches(f"hmac-11111111-{'2' * 32}")
    assert not mine.matches("0" * 64)


def test_a_deletion_that_has_begun_is_known_by_what_stands_there() -> None:
    at = now()
    state = Named(
        id="t",
        name="T",
        created_at=at,
        updated_at=at,
        operations=NONE.insert(OPERATION, AcceptedRequest("create", SENT)),
    )
    asked: list[CreateTag] = []

    def decide(_: Named | None, command: CreateTag) -> tuple[Event, ...]:
        asked.append(command)
        return ()

    Fingerprint(OPERATION, SENT, f"hmac-11111111-{'1' * 32}").deciding(decide)(
        state, CreateTag(at=at, operation=OPERATION, fingerprint=f"hmac-11111111-{'1' * 32}", tag="t", name="T")
    )
    assert asked[0].fingerprint == SENT


async def test_a_create_that_was_refused_behind_its_append_stays_refused(side: WriteSide) -> None:
    """Whoever asks again with the key is told the same, by another process too, and when the tag exists again."""
    await pairs.project(side, "shared")
    await pairs.available(side, "shared")
    tag_id, operation, id_ = name(), str(uuid.uuid4()), str(uuid.uuid4())
    key = str(uuid.uuid4())
    await pairs.tag(side, tag_id)
    await side.ok("system", "tag", "delete", {"tag": tag_id})
    fingerprints = Fingerprints(Vault.of(side.nc, side.home / "master.key"))
    made = await fingerprints.of(operation, "same")
    assert made is not None
    asked = {**pairs.done(), "operation": operation, "fingerprint": made.stored, "deadline": now()}
    said = {"vm": id_, "project": "shared", "name": "web", "image": "shared", "spec": pairs.SPEC, "tags": (tag_id,)}
    requested = VmRequested(**asked, **said)
    await side.store.append([Change(Tip(Ref("shared", "vm", id_)), [requested])], pairs.CONTEXT)
    args = pairs.create_args(id_, tags=[tag_id])
    first = await side.ask("shared", "vm", "create", args, operation=operation, key=id_)
    assert first["problem"]["code"] == "tag_not_found"
    await side.ok("system", "tag", "create", {"tag": tag_id, "name": "again"})
    async with two(side.nats.url, side.home):  # they know it from the log alone
        for _ in range(6):
            assert await side.ask("shared", "vm", "create", args, operation=operation, key=id_) == first
    other = await side.ok("shared", "vm", "create", pairs.create_args(str(uuid.uuid4()), tags=[tag_id]), key=key)
    assert not other["replayed"]
