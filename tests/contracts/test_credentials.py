"""On a server that trusts signed users only: an application with a credentials file and just the rights it needs."""

import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import nkeys
import pytest
from eventsourcing.persistence import OperationalError

from runtime.local.servers import NATS_CONF, NatsServer, start_nats
from tests.contracts.conftest import MakeFactory
from tests.contracts.events import history

RIGHTS = {
    "pub": [
        "{prefix}.>",
        "$JS.API.STREAM.INFO.{stream}",
        "$JS.API.STREAM.CREATE.{stream}",
        "$JS.API.STREAM.MSG.GET.{stream}",
        "$JS.API.DIRECT.GET.{stream}",
        "$JS.API.CONSUMER.CREATE.{stream}.>",
        "$JS.API.CONSUMER.DELETE.{stream}.>",
        "$JS.FC.>",
    ],
    "sub": ["_INBOX.>"],
}
"""As docs/eventsourcing.md lists them."""


def key(role: int) -> Any:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), role)))


def token(issuer: Any, subject: Any, name: str, nats: dict[str, Any]) -> str:
    """A JWT as NATS has them."""
    claims: dict[str, Any] = {
        "iat": 1700000000,
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": {**nats, "version": 2},
    }
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    parts = [json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return (signed + b"." + base64.urlsafe_b64encode(issuer.sign(signed)).rstrip(b"=")).decode()


class Authority:
    """An operator, one account that may use JetStream, and the users it makes."""

    def __init__(self) -> None:
        self.operator = key(nkeys.PREFIX_BYTE_OPERATOR)
        self.account, self.system = key(nkeys.PREFIX_BYTE_ACCOUNT), key(nkeys.PREFIX_BYTE_ACCOUNT)

    def configuration(self) -> str:
        unlimited = dict.fromkeys(("subs", "data", "payload", "conn", "leaf", "imports", "exports"), -1)
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        accounts = {
            self.account: {**unlimited, **storage, "wildcards": True},
            self.system: {**unlimited, "wildcards": True},
        }
        tokens = {
            a: token(self.operator, a, "A", {"type": "account", "limits": limits}) for a, limits in accounts.items()
        }
        preload = "\n".join(f"{account.public_key.decode()}: {signed}" for account, signed in tokens.items())
        operator = token(self.operator, self.operator, "O", {"type": "operator"})
        system = self.system.public_key.decode()
        return (
            f"operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
        )

    def credentials(self, file: Path, rights: dict[str, list[str]]) -> str:
        user = key(nkeys.PREFIX_BYTE_USER)
        allowed = {verb: {"allow": names} for verb, names in rights.items()}
        limits = {"subs": -1, "data": -1, "payload": -1}
        signed = token(self.account, user, "U", {"type": "user", **allowed, **limits})
        file.write_text(
            f"-----BEGIN NATS USER JWT-----\n{signed}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
        return str(file)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def guarded(servers_home: Path, authority: Authority) -> AsyncIterator[NatsServer]:
    home = servers_home / uuid4().hex
    home.mkdir()
    conf = home / "nats.conf"
    conf.write_text(NATS_CONF.read_text() + authority.configuration())
    server = await start_nats(home, conf=conf)
    yield server
    await server.kill()


def test_with_credentials_and_no_more_rights_than_needed(
    make_factory: MakeFactory,
    environment: dict[str, str],
    guarded: NatsServer,
    authority: Authority,
    tmp_path: Path,
) -> None:
    prefix, stream = environment["NATS_SUBJECT_PREFIX"], environment["NATS_STREAM"]
    rights = {
        verb: sorted({n.format(prefix=prefix, stream=s) for n in names for s in (stream, f"{stream}_SNAPSHOTS")})
        for verb, names in RIGHTS.items()
    }
    settings = {"NATS_URL": guarded.url, "NATS_CREDS": authority.credentials(tmp_path / "user.creds", rights)}
    recorder, other = (make_factory(**settings).process_recorder() for _ in range(2))
    some = uuid4()
    assert recorder.insert_events(history(some, 1, 700)) == list(range(1, 701))
    assert other.insert_events(history(some, 701, 701)) == [701]
    assert recorder.select_events(some, gt=600) == history(some, 601, 701)
    with recorder.subscribe() as subscription:
        assert [next(subscription).id for _ in range(701)] == list(range(1, 702))
    snapshots = make_factory(**settings).aggregate_recorder("snapshots")
    snapshots.insert_events(history(some, 5, 5))
    assert snapshots.select_events(some, desc=True, limit=1) == history(some, 5, 5)


def test_without_credentials(make_factory: MakeFactory, guarded: NatsServer) -> None:
    factory = make_factory(NATS_URL=guarded.url, NATS_TIMEOUT="1")
    with pytest.raises(OperationalError, match="does not answer"):
        factory.application_recorder()
