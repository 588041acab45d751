"""guest-data beside projections that answer, that are away, and that talk nonsense; and a flood of guests."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from nats.aio.msg import Msg

from domain.contract import Power
from domain.contract.guest_data import BUSY, UNKNOWN, SeedQuestion
from domain.vm import AbandonVm, DeleteVm, RebuildVm
from projections import guest_answers, seeds
from projections.database import ReadModelsUnavailable
from projections.elsewhere import Elsewhere
from projections.guest_answers import GuestAnswers
from projections.guest_data import asker as asking, main
from projections.guest_data.copies import name_of
from projections.guest_data.rate import Rate
from projections.guest_data.source import network_of
from projections.position import Position
from runtime import subjects
from runtime.bus.refusal_records import RefusalRecords
from runtime.bus.refused_calls import Refusal
from tests.http_edge import serving
from tests.projections.guests import TOKEN, Guests, guest_data, guests, placed
from tests.waiting import eventually

__all__ = ["guests"]

DOCUMENTS = ("meta-data", "user-data", "vendor-data", "network-config")


@pytest.fixture
def away(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the projections unable to answer, each time it is called with True."""
    real = seeds.find

    async def find(*given: Any) -> Any:
        raise ReadModelsUnavailable("Postgres is away")

    def switch(is_away: bool) -> None:
        monkeypatch.setattr(seeds, "find", find if is_away else real)
        monkeypatch.setattr(seeds, "valid_digests", find if is_away else valid_digests)

    valid_digests = seeds.valid_digests
    return switch


async def documents(guests: Guests, secret: str) -> dict[str, tuple[int, bytes]]:
    answers = {name: await guests.get(secret, name) for name in DOCUMENTS}
    return {name: (answer.status_code, answer.content) for name, answer in answers.items()}


async def test_a_guest_that_boots_while_nobody_can_say_is_told_what_it_was_told_last(guests: Guests, away: Any) -> None:
    id_ = "11111111-2222-4333-8444-777777777777"
    ref = await placed(guests, id_=id_, user_data=await guests.cloud.vault.seal(id_, b"#!/bin/sh\n\xff\0"))
    other = await placed(guests)
    secret = await guests.secret(ref)
    told = await documents(guests, secret)
    assert told["user-data"] == (200, b"#!/bin/sh\n\xff\0")
    away(True)
    assert await documents(guests, secret) == told
    unseen = await guests.get(await guests.secret(other), "meta-data")
    assert (unseen.status_code, unseen.headers["retry-after"]) == (503, "1")
    assert (await guests.phone(secret, instance_id=id_)).status_code == 503
    away(False)
    assert await guests.opens(other, 1)


async def test_a_copy_is_used_only_while_nobody_can_say(guests: Guests, away: Any) -> None:
    """And what the projections know no more is forgotten, so that it does not come back when they are away."""
    cloud = guests.cloud
    ref = await placed(guests)
    secret = await guests.secret(ref)
    assert await guests.opens(ref, 1)
    await cloud.ask(ref, AbandonVm)
    await cloud.ask(ref, RebuildVm, image="base")
    await cloud.caught_up()
    rebuilt = await guests.secret(ref, 2)
    assert f"instance-id: {ref.id}-2" in (await guests.get(rebuilt, "meta-data")).text
    assert f"instance-id: {ref.id}-2" in (await guests.get(secret, "meta-data")).text, "not the copy"
    await cloud.ask(ref, DeleteVm)
    await cloud.report(ref, Power.ABSENT)
    await cloud.caught_up()
    assert [await guests.opens(ref, boots) for boots in (1, 2)] == [False, False]
    away(True)
    assert (await guests.get(secret, "meta-data")).status_code == 503
    away(False)
    assert (await guests.get(secret, "meta-data")).status_code == 404


async def test_copies_of_what_is_over_are_removed_without_a_guest_that_asks(guests: Guests, away: Any) -> None:
    cloud, source = guests.cloud, guests.source
    kept, over = await placed(guests), await cloud.running()
    secrets = {ref: await guests.secret(ref) for ref in (kept, over)}
    for ref in secrets:
        assert await guests.opens(ref, 1)
    await main.remove_invalid_once(source.asker, source.copies)
    assert all(source.copies.holds(name_of(secret)) for secret in secrets.values())
    away(True)
    await cloud.ask(over, DeleteVm)
    await cloud.report(over, Power.ABSENT)
    await main.remove_invalid_once(source.asker, source.copies)
    assert source.copies.holds(name_of(secrets[over])), "nobody could say"
    away(False)
    await main.remove_invalid_once(source.asker, source.copies)
    assert [source.copies.holds(name_of(secrets[ref])) for ref in (kept, over)] == [True, False]


async def test_the_secret_is_in_no_subject_and_no_answer(guests: Guests) -> None:
    heard: list[Msg] = []

    async def note(msg: Msg) -> None:
        heard.append(msg)

    sub = await guests.cloud.nc.subscribe(">", cb=note)
    ref = await placed(guests)
    secret = await guests.secret(ref)
    assert await guests.opens(ref, 1)
    await eventually(lambda: any(b"local-hostname" in msg.data for msg in heard), "the answer passes by")
    await sub.unsubscribe()
    assert [msg.subject for msg in heard if secret.encode() in msg.data] == [subjects.GUEST_SEED]
    assert not any(secret in msg.subject for msg in heard)


@asynccontextmanager
async def talking(guests: Guests, subject: str, body: bytes) -> AsyncIterator[None]:
    """Somebody in the place of the projections, who says this. What is asked goes to a subject of the test."""

    async def say(msg: Msg) -> None:
        await guests.cloud.nc.publish(msg.reply, body)

    sub = await guests.cloud.nc.subscribe(f"test.{subject}", cb=say)
    yield
    await sub.unsubscribe()


GOOD: dict[str, Any] = {"project": "default", "vm": "11111111-2222-4333-8444-888888888888", "meta_data": "a: b"}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff", b"[]", b'{"ok": {}}', b'{"ok": null}', b'{"problem": {}}', b'{"ok": {"digests": 1}}'),
        json.dumps({"ok": {**GOOD}}).encode(),
        json.dumps({"ok": {**GOOD, "user_data": "%%%"}}).encode(),
        json.dumps({"ok": {**GOOD, "user_data": "", "vm": "../../x"}}).encode(),
        json.dumps({"ok": {**GOOD, "user_data": "", "meta_data": 7}}).encode(),
        json.dumps({"problem": {"code": "vm_not_found", "status": 404, "detail": "of another protocol"}}).encode(),
        json.dumps({"problem": {"code": "guest_call_refused", "status": 400, "detail": "x"}}).encode(),
    ],
    ids=lambda body: repr(body[:60]),
)
async def test_nonsense_in_the_place_of_an_answer_is_no_answer(
    guests: Guests, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await placed(guests)
    secret = await guests.secret(ref)
    before = await guests.get(secret, "meta-data")
    assert before.status_code == 200
    monkeypatch.setattr(subjects, "GUEST_SEED", f"test.{subjects.GUEST_SEED}")
    async with talking(guests, "nebula.guests.seed", body):
        assert (await guests.get(secret, "meta-data")).content == before.content
        assert (await guests.get("N" * 32, "meta-data")).status_code == 503


@pytest.mark.parametrize("subject", [subjects.GUEST_SEED, subjects.GUEST_READY, subjects.GUEST_SEEDS_HELD])
async def test_a_question_that_makes_no_sense_is_refused(guests: Guests, subject: str) -> None:
    nonsense = [
        *(b"", b"\xff\xfe", b"null", b"[]", b"{}", b"[" * 50_000, b'{"secret": 7}', b'{"secret": "short"}'),
        b'{"secret": "' + b"A" * 200 + b'"}',
        b'{"secret": "AAAAAAAAAAAAAAAAAAAAAAAA\\n", "call": {"instance_id": "x"}}',
        json.dumps({"digests": ["A" * 64], "secret": "?"}).encode(),
        json.dumps({"digests": ["0" * 64] * 1001, "secret": "?"}).encode(),
    ]
    for body in nonsense:
        said = json.loads((await guests.cloud.nc.request(subject, body, timeout=30)).data)
        assert said["problem"]["status"] == 422, (body[:60], said)
        assert "AAAA" not in json.dumps(said)


async def test_only_an_inbox_is_answered(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is asked is not even looked up."""
    stolen = await guests.cloud.nc.subscribe("nebula.events.default.vm.x")
    ref = await placed(guests)
    body = json.dumps({"secret": await guests.secret(ref)}).encode()
    assert await guests.opens(ref, 1)
    real, looked = seeds.find, 0

    async def find(*given: Any) -> Any:
        nonlocal looked
        looked += 1
        return await real(*given)

    monkeypatch.setattr(seeds, "find", find)
    await guests.cloud.nc.publish(subjects.GUEST_SEED, body, reply="nebula.events.default.vm.x")
    assert await guests.opens(ref, 1)
    assert looked == 1
    with pytest.raises(TimeoutError):
        await stolen.next_msg(timeout=0.05)
    await stolen.unsubscribe()


async def test_a_flood_leaves_the_database_to_the_read_models(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few questions are worked on at a time, a bounded number waits, and the others hear that they are too many."""
    real, go = seeds.find, asyncio.Event()
    now, most = 0, 0

    async def find(*given: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await go.wait()
            return await real(*given)
        finally:
            now -= 1

    monkeypatch.setattr(seeds, "find", find)
    ref = await placed(guests)
    body = json.dumps({"secret": await guests.secret(ref)}).encode()
    nc = guests.cloud.nc
    many = [asyncio.create_task(nc.request(subjects.GUEST_SEED, body, timeout=60)) for _ in range(guest_answers.MOST)]
    await eventually(lambda: now == guest_answers.AT_A_TIME, "they have begun")
    late = json.loads((await nc.request(subjects.GUEST_SEED, body, timeout=60)).data)
    assert (late["problem"]["code"], late["problem"]["status"]) == (BUSY, 503)
    await placed(guests)
    await guests.cloud.caught_up()  # the read models go on
    go.set()
    said = [json.loads((await each).data) for each in many]
    assert most == guest_answers.AT_A_TIME
    assert {"ok"} >= {key for each in said[:4] for key in each}
    assert {(each.get("problem") or {}).get("status", 503) for each in said} == {503}
    assert await guests.opens(ref, 1)


async def test_who_guesses_secrets_is_held_back(guests: Guests) -> None:
    """By its address, and without asking the projections; what it was told before it is told again."""
    source = guest_data(guests.cloud.nc)
    object.__setattr__(source, "guesses", Rate(3, 0.0))
    ref, new = await placed(guests), await placed(guests)
    known, unknown = await guests.secret(ref), await guests.secret(new)
    async with serving(source) as served:
        url = f"http://{served.host}:{served.port}"
        elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with (
            httpx.AsyncClient(base_url=url) as http,
            httpx.AsyncClient(base_url=url, transport=elsewhere) as other,
        ):
            assert (await http.get(f"/{known}/meta-data")).status_code == 200
            guessed = [(await http.get(f"/{letter * 32}/meta-data")).status_code for letter in "ABCDEF"]
            assert guessed == [404, 404, 404, 429, 429, 429]
            assert (await http.get(f"/{known}/meta-data")).status_code == 200
            assert (await http.get(f"/{unknown}/meta-data")).status_code == 429
            assert (await other.get(f"/{unknown}/meta-data")).status_code == 200


def test_a_network_of_ipv6_counts_as_one() -> None:
    assert network_of("2001:db8::1:2") == network_of("2001:db8::ffff") == "2001:db8::/64"
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert (network_of(None), network_of("?")) == ("", "?")


async def test_the_host_sees_how_it_is_and_guests_do_not(guests: Guests, away: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("projections.guest_data.status.FRESH", 0.0)
    ref = await placed(guests)
    assert await guests.opens(ref, 1)
    well = await guests.http.get("/healthz")
    assert (well.status_code, well.json()["status"]) == (200, "ok")
    assert well.json()["copies"] >= 1
    away(True)
    ill = await guests.http.get("/healthz")
    assert (ill.status_code, ill.json()["status"]) == (503, "unavailable")
    assert "Postgres is away" in ill.json()["detail"]
    assert await guests.opens(ref, 1)
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": TOKEN}):
        assert (await guests.http.get("/metrics", headers=headers)).status_code == 404
    metrics = (await guests.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})).text
    assert 'nebula_guest_data_answers_total{document="meta-data",status="200"}' in metrics
    assert "nebula_guest_data_from_copies_total" in metrics
    assert "nebula_guest_data_copies " in metrics
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=f"http://{guests.host}", transport=elsewhere) as guest:
        for path in ("/healthz", "/metrics"):
            seen = await guest.get(path)
            assert (seen.status_code, seen.text) == (404, "not found\n")


async def test_an_old_answer_never_follows_a_newer_one(guests: Guests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two questions about one secret: the answer to the first is late, and by then the secret opens nothing."""
    source = guests.source
    ref = await placed(guests)
    secret = await guests.secret(ref)
    told = await source.asker.seed(secret)
    go, asked = asyncio.Event(), 0

    async def seed(_: asking.Asker, of: str) -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise asking.UnknownSecret("deleted meanwhile")
        await go.wait()
        return told

    monkeypatch.setattr(asking.Asker, "seed", seed)
    first = asyncio.create_task(guests.get(secret, "meta-data"))
    await eventually(lambda: asked == 1, "the first is under way")
    second = asyncio.create_task(guests.get(secret, "meta-data"))

    def has_come() -> bool:
        turn = source.turns.get(name_of(secret))
        return second.done() or (turn is not None and bool(turn._waiters))

    await eventually(has_come, "the second waits for its turn, or was answered before the first")
    go.set()
    assert [(await each).status_code for each in (first, second)] == [200, 404]
    assert not source.copies.holds(name_of(secret))


async def test_projections_that_stand_by_for_others_answer_as_well(guests: Guests) -> None:
    """Their own runner does not follow; what counts is how new the tables are."""
    cloud = guests.cloud
    standing_by = GuestAnswers(cloud.nc, guests.pool, cloud.vault, Position())
    ref = await placed(guests)
    assert (await standing_by.find(await guests.secret(ref))).vm == ref.id
    with pytest.raises(guest_answers.Refused) as refused:
        await standing_by.find("S" * 32)
    assert refused.value.refusal.code == UNKNOWN


async def asked(guests: Guests, subject: str, **question: Any) -> dict[str, Any]:
    found = await guests.cloud.nc.request(subject, json.dumps(question).encode(), timeout=30)
    return dict(json.loads(found.data))


async def test_guest_data_of_a_node_asks_for_guests_that_are_there(guests: Guests) -> None:
    """A stolen secret is worth nothing on another node, and does not show that it is valid."""
    ref = await placed(guests)
    secret = await guests.secret(ref)
    here = "host-1"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert (await asked(guests, subjects.guest_seed(here), secret=secret))["ok"]["vm"] == ref.id
    assert (await asked(guests, subjects.guest_seeds_held(here), digests=[digest]))["ok"] == {"digests": []}
    unknown = await asked(guests, subjects.guest_seed("elsewhere"), secret="N" * 32)
    assert await asked(guests, subjects.guest_seed("elsewhere"), secret=secret) == unknown
    assert unknown["problem"]["code"] == UNKNOWN
    call = {"instance_id": ref.id}
    refused = await asked(guests, subjects.guest_ready("elsewhere"), secret=secret, call=call)
    assert refused == unknown
    found = await asked(guests, subjects.guest_seeds_held("elsewhere"), digests=[digest])
    assert found["ok"] == {"digests": [digest]}


async def test_auditors_see_who_asks_for_guests_of_others(guests: Guests) -> None:
    ref = await placed(guests)
    secret = await guests.secret(ref)
    noted: list[Elsewhere] = []

    class Records(RefusalRecords[Elsewhere]):
        def note(self, entry: Elsewhere, count: int = 1) -> None:
            noted.append(entry)

    cloud = guests.cloud
    answers = GuestAnswers(cloud.nc, guests.pool, cloud.vault, cloud.position, Records(cloud.nc, "x"))
    with pytest.raises(guest_answers.Refused):
        await answers.seed(SeedQuestion(secret=secret), "elsewhere")
    assert noted == [Elsewhere("elsewhere", ref.id, "seed")]
    record = Refusal.model_validate_json(noted[0].record(datetime.now(UTC), 3))
    assert (record.code, record.actor, record.credential, record.count) == (
        "guest_elsewhere",
        "system:guest-data-elsewhere",
        f"vm:{ref.id}",
        3,
    )
