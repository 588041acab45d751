"""A row and a view do not depend on how the state was loaded: folded from the log, or read back from jsonb."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic_core import to_json
from rpds import HashTrieMap

from domain.accepted_requests import AcceptedRequest
from domain.access import CLOUD_ROLES, PROJECT_ROLES, Role
from domain.account import Account
from domain.base import Resources, Sealed
from domain.contract import Desired, Watchdog
from domain.enrollment import Enrollment, JoinToken, NodeKey
from domain.flavor import Flavor
from domain.guest import HostKey
from domain.image import Image, ImagePhase
from domain.named import Named
from domain.node import Node
from domain.operation import problem
from domain.project import Project
from domain.token import Token
from domain.vm import Phase, RestartPolicy, Spec, Vm
from domain.vm.values import Considered
from eventstore.log.envelope import Recorded, Ref
from projections import times
from projections.aggregates import Aggregates
from projections.books import TABLES
from projections.database import clean_json
from projections.events import recorded, row
from projections.model import Row
from projections.operation_rows import shown
from projections.past import versions
from projections.vms import terms
from runtime import subjects
from runtime.local.servers import Postgres
from tests.domain.story import uid
from tests.projections.cloud import Cloud
from tests.projections.test_runner import made  # noqa: F401  (a fixture)

word = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["\0", "\\u0000", "\\\\u0000"])
slug = st.text("abcz-", min_size=1, max_size=12)
moments = st.sampled_from(
    [datetime(2026, 1, 2, 3, 4, 5, 678, UTC), datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3)))]
)
known = st.dictionaries(slug, st.builds(AcceptedRequest, verb=slug, fingerprint=word), max_size=4).map(HashTrieMap)
words = st.lists(word, max_size=3).map(tuple)
STATES: dict[str, st.SearchStrategy[Any]] = {
    "vm": st.builds(
        Vm,
        id=slug,
        project=slug,
        name=word,
        image=slug,
        spec=st.just(Spec(vcpus=1, memory_mib=512, disk_gib=4)),
        phase=st.sampled_from(Phase),
        desired=st.sampled_from(Desired),
        boots=st.integers(0, 9),
        created_at=moments,
        updated_at=moments,
        region=st.none() | slug,
        tags=words,
        labels=st.dictionaries(slug, word, max_size=5),
        restart_policy=st.sampled_from(RestartPolicy),
        watchdog=st.sampled_from(Watchdog),
        ssh_keys=words,
        user_data=st.none() | st.builds(Sealed, key=slug, nonce=word, ciphertext=word, size=st.integers(0, 9)),
        addresses=words,
        host_keys=st.lists(st.builds(HostKey, type=slug, key=slug, fingerprint=slug), max_size=2).map(tuple),
        considered=st.lists(st.builds(Considered, node=slug, reason=st.none() | word), max_size=3).map(tuple),
        forgotten=st.none() | word,
        operations=known,
    ),
    "enrollment": st.builds(
        Enrollment,
        id=slug,
        token=st.none() | st.builds(JoinToken, digest=slug, issued_at=moments, expires_at=moments),
        key=st.none()
        | st.builds(
            NodeKey,
            public_key=slug,
            fingerprint=slug,
            joined_at=moments,
            digest=slug,
            issued_at=moments,
            expires_at=moments,
            revoked_at=st.none() | moments,
        ),
        revoked=words,
        created_at=moments,
        updated_at=moments,
        operations=known,
    ),
    "flavor": st.builds(
        Flavor,
        id=slug,
        name=word,
        size=st.just(Spec(vcpus=1, memory_mib=512, disk_gib=4)),
        project=st.none() | slug,
        labels=st.dictionaries(slug, word, max_size=5),
        description=st.none() | word,
        deprecated=st.booleans(),
        created_at=moments,
        updated_at=moments,
        operations=known,
    ),
    "image": st.builds(
        Image,
        id=slug,
        name=word,
        source=word,
        phase=st.sampled_from(ImagePhase),
        description=st.none() | word,
        failure=st.none() | word,
        created_at=moments,
        updated_at=moments,
        registered_by=slug,
        operations=known,
    ),
    "node": st.builds(
        Node,
        id=slug,
        info=st.fixed_dictionaries(
            {
                "node": slug,
                "region": slug,
                "vcpus": st.just(1),
                "memory_mib": st.just(1),
                "disk_gib": st.just(1),
                "virt_type": st.just("kvm"),
                "seed_url": st.just("http://192.0.2.1/"),
                "version": slug,
            }
        ),
        reservations=st.dictionaries(slug, st.builds(Resources, vcpus=st.integers(0, 9)), max_size=4),
        registered_at=moments,
        updated_at=moments,
        operations=known,
    ),
    "project": st.builds(
        Project,
        id=slug,
        name=word,
        tags=words,
        ssh_keys=words,
        members=st.dictionaries(slug, st.sampled_from(PROJECT_ROLES), max_size=4),
        created_at=moments,
        updated_at=moments,
        operations=known,
    ),
    "tag": st.builds(Named, id=slug, name=word, created_at=moments, updated_at=moments, operations=known),
    "token": st.builds(
        Token,
        id=slug,
        principal=slug,
        incarnation=slug,
        digest=slug,
        name=word,
        expires_at=moments,
        project=st.none() | slug,
        role=st.none() | st.sampled_from(Role),
        read_only=st.booleans(),
        revoked=st.booleans(),
        created_at=moments,
        updated_at=moments,
        operations=known,
    ),
    "user": st.builds(
        Account,
        id=slug,
        name=word,
        incarnation=slug,
        roles=st.lists(st.sampled_from(CLOUD_ROLES), unique=True).map(tuple),
        disabled=st.booleans(),
        created_at=moments,
        updated_at=moments,
        operations=known,
    ),
}
STATES["service_account"] = STATES["user"]


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.dsn, autocommit=True) as conn:
        yield conn


def stored(conn: psycopg.Connection[Any], text: str) -> str:
    """JSON as it comes back from jsonb: keys by their length first."""
    row = conn.execute("SELECT %s::jsonb::text", [text]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("kind", sorted(TABLES))
def test_rows_and_views_are_the_same_after_jsonb(kind: str, database: psycopg.Connection[Any]) -> None:
    table: Aggregates[Any, Any] = TABLES[kind]
    ref = Ref("p", kind, "x")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STATES[kind])
    def check(state: Any) -> None:
        *columns, text = _split(table, ref, state)
        back = stored(database, text)
        again = table.of.stored.validate_json(back)
        *others, text_again = _split(table, ref, again)
        assert others == columns
        assert json.loads(text_again) == json.loads(text)
        there = to_json(table.shown(table.found({"state": back, "version": 1, "position": 2, "deleted": False})))
        assert there == to_json(table.render(state, 1, 2))
        assert there == to_json(table.render(again, 1, 2))
        assert there.decode() == versions.shown(table, Row(state, 1, 2, 1)), "the past shows the same"

    check()


def _split(table: Aggregates[Any, Any], ref: Ref, state: Any) -> list[Any]:
    """The values of a row, its state last."""
    values = table._values(ref, Row(state, 1, 2, 1), state)
    return [*values[:7], *values[8:], values[7]]


ZONES = [UTC, timezone(timedelta(hours=-3)), timezone(timedelta(hours=5, minutes=45, seconds=3))]


LAST = datetime(9999, 12, 30)  # noqa: DTZ001  (the zones are beside it)


@given(st.datetimes(max_value=LAST, min_value=LAST.replace(1, 1, 2), timezones=st.sampled_from(ZONES)))
def test_a_time_is_written_in_utc_with_all_its_digits(moment: datetime) -> None:
    written = times.text(moment)
    assert written == moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert times.utc(written) == times.utc(moment.isoformat()) == written


def test_terms_of_labels_do_not_depend_on_their_order() -> None:
    one, other = {"environment": "prod", "team": "blue"}, {"team": "blue", "environment": "prod"}
    assert terms(one) == terms(other) == ["environment", "environment=prod", "team", "team=blue"]


def test_a_nul_that_is_only_spelled_stays_as_it_is(database: psycopg.Connection[Any]) -> None:
    for text in ("\0", "\\u0000", "\\\0", "\\\\u0000", "a\\\\\0b\\u0000"):
        found = json.loads(stored(database, clean_json(json.dumps([text]))))
        assert found == [text.replace("\0", "\N{REPLACEMENT CHARACTER}")]


def test_an_event_is_written_the_same_from_the_log_and_from_its_row(database: psycopg.Connection[Any]) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "vm.x:1", "ce-type": "nebula.vm.VmSang", "ce-aggregateversion": "1"}
    told = Recorded(7, subjects.event("p", "vm", uid(1)), headers, b'{"b": 1, "a": 2}', datetime.now(UTC))
    values = row(told)
    found = {"position": 7, "subject": told.subject, "body": values[12], "stored_at": told.stored_at}
    read = recorded({**found, "headers": json.loads(stored(database, str(values[11])))})
    assert to_json(read.cloud_event()) == to_json(told.cloud_event())


def test_an_operation_is_written_the_same_from_jsonb(database: psycopg.Connection[Any]) -> None:
    why = problem("disk_full", "no room", "source")
    state = dict.fromkeys(("id", "verb", "kind", "resource", "project", "actor"), "x")
    times = {"accepted_at": "2026-01-02T03:04:05Z", "ended_at": "2026-01-02T00:04:05.678-03:00"}
    whole = json.dumps({**state, **times, "status": "failed", "first": 1, "position": 1, "problem": why})
    back = shown({"state": stored(database, whole), "steps": []})
    assert to_json(back) == to_json(shown({"state": whole, "steps": []}))
    assert (back["accepted_at"], back["ended_at"]) == ("2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:05.678000Z")


async def test_labels_are_as_replayed_after_a_later_event(made: tuple[Cloud, Any]) -> None:  # noqa: F811
    from projections import rebuild

    cloud, _ = made
    ref = await cloud.create(labels={"environment": "prod", "team": "blue"})
    await cloud.caught_up()  # the next event is folded on what Postgres holds
    await cloud.place(ref)
    await cloud.caught_up()
    assert (await rebuild.verify(cloud.nc, cloud.dsn, cloud.vault)).differing == ()
