"""The file of event keys: made once, read again when it changes, rotated."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client

from domain.project import ProjectRenamed
from eventstore.log import keyring
from eventstore.log.envelope import Context, Ref
from eventstore.log.keyring import BadKeyring, Keyring, NoKeyring
from eventstore.log.store import Change, EventStore, Tip
from runtime.bus import streams
from runtime.local.servers import NatsServer, start_nats
from tests.event_keys import KEY, KEYS, put_keys

DIGEST = "ab" * 32


def renamed(name: str) -> ProjectRenamed:
    return ProjectRenamed(at=datetime(2030, 1, 1, tzinfo=UTC), operation="o", fingerprint="f", name=name)


async def test_the_first_start_makes_it_and_records_the_end_of_the_log(tmp_path: Path) -> None:
    server, nc = await empty_log(tmp_path)
    try:
        store = EventStore(nc)
        await store.append([Change(Tip(Ref("p", "project", "p")), [renamed("old")])], Context("a"))
        ring = await keyring.begin(tmp_path / "event.keys", store)
        assert ring.load().since == 1
        assert stat.S_IMODE((tmp_path / "event.keys").stat().st_mode) == 0o600
        again = await keyring.begin(tmp_path / "event.keys", store)
        assert again.mac(DIGEST) == ring.mac(DIGEST)
    finally:
        await nc.close()
        await server.stop()


async def test_a_lost_file_is_not_replaced_by_itself(tmp_path: Path) -> None:
    server, nc = await empty_log(tmp_path)
    try:
        path = tmp_path / "event.keys"
        store = EventStore(nc, await keyring.begin(path, EventStore(nc)))
        await store.append([Change(Tip(Ref("p", "project", "p")), [renamed("new")])], Context("a"))
        path.unlink()
        with pytest.raises(BadKeyring, match=r"nebula keys begin"):
            await keyring.begin(path, EventStore(nc))
        assert not path.exists()
        ring = await keyring.begin(path, EventStore(nc), accept=True)
        assert ring.load().since == 1
    finally:
        await nc.close()
        await server.stop()


async def empty_log(home: Path) -> tuple[NatsServer, Client]:
    server = await start_nats(home / "nats")
    nc = Client()
    await nc.connect(server.url)
    await streams.ensure_all(nc.jetstream(), 1)
    return server, nc


def test_nothing_is_trusted_while_there_is_no_file(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "event.keys")
    with pytest.raises(NoKeyring):
        ring.fault(1, DIGEST, None)
    with pytest.raises(NoKeyring):
        ring.mac(DIGEST)
    put_keys(tmp_path, since=0)
    assert ring.fault(1, DIGEST, KEYS.mac(DIGEST)) is None
    (tmp_path / "event.keys").unlink()
    assert ring.fault(1, DIGEST, KEYS.mac(DIGEST)) is None  # what was read stays


def test_a_rotation_is_noticed_and_old_events_stay_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK", -1.0)  # at each use
    path = put_keys(tmp_path, since=0)
    reader, writer = Keyring(path), Keyring(path)
    reader.ready()
    old = writer.mac(DIGEST)
    prepared = keyring.prepare(path)
    assert prepared.signer == KEY.id
    assert writer.mac(DIGEST) == old
    rotated = keyring.rotate(path)
    assert rotated.signer == prepared.keys[0].id
    new = writer.mac(DIGEST)
    assert new.partition(":")[0] == rotated.signer
    assert reader.fault(1, DIGEST, new) is None
    assert reader.fault(1, DIGEST, old) is None
    with pytest.raises(BadKeyring, match="rotate first"):
        keyring.retire(path, rotated.signer, 5)
    keyring.retire(path, KEY.id, 5)
    fresh = Keyring(path)
    assert fresh.fault(5, DIGEST, old) is None
    assert fresh.fault(6, DIGEST, old) is not None
    assert keyring.rotate(path).signer not in (rotated.signer, KEY.id)


@pytest.mark.parametrize("text", [b"", b"{}", b"no json", b'{"since":0,"signer":"x","keys":[]}'])
def test_a_damaged_file_is_named_and_its_content_is_not(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "event.keys"
    path.write_bytes(text)
    with pytest.raises(BadKeyring, match=r"event\.keys"):
        Keyring(path).ready()


def test_a_damaged_file_does_not_replace_known_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK", -1.0)  # at each use
    ring = Keyring(put_keys(tmp_path, since=0))
    before = ring.mac(DIGEST)
    (tmp_path / "event.keys").write_text("damaged")
    assert ring.mac(DIGEST) == before
    document = json.loads(put_keys(tmp_path, since=7).read_text())
    document["keys"][0]["key"] = document["keys"][0]["key"][:-4] + "AAA="
    (tmp_path / "event.keys").write_text(json.dumps(document))
    assert ring.mac(DIGEST) == before
