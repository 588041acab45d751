"""Keys beside the log: what they sealed opens until they are destroyed, and never again."""

import asyncio
import base64
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from nats.aio.client import Client
from nats.js.api import KeyValueConfig

from eventstore.vault import masterkey
from eventstore.vault.keystore import Entry, KeyStore, adopt
from eventstore.vault.masterkey import Ring
from eventstore.vault.vault import Erased, Vault, VaultUnavailable, WrongMasterKey
from runtime import subjects
from runtime.bus.quick_client import QuickClient
from runtime.bus.streams import ensure_all
from runtime.local.servers import NatsServer, start_nats
from tests.eventstore.log import connection, some_id

TEXT = "#cloud-config\npassword: é-correct-horse-battery\n"


@pytest.fixture
async def vault(nc: Client, tmp_path: Path) -> Vault:
    return Vault.of(nc, tmp_path / "master.key")


async def other(nc: Client, path: Path) -> Vault:
    """Another process's view of the same keys."""
    return Vault.of(nc, path / "master.key")


async def test_what_is_sealed_opens_again_also_elsewhere(nc: Client, vault: Vault, tmp_path: Path) -> None:
    sealed = await vault.seal(vm := some_id(), TEXT)
    assert (sealed.key, sealed.size) == (vm, len(TEXT.encode()))
    assert await vault.unseal(sealed) == TEXT
    assert await (await other(nc, tmp_path)).unseal(sealed) == TEXT
    again = await vault.seal(vm, TEXT)
    assert again.ciphertext != sealed.ciphertext, "a nonce of its own each time"
    assert await vault.unseal(again) == TEXT


async def test_what_anybody_put_behind_a_key_is_passed_over(nc: Client, vault: Vault, tmp_path: Path) -> None:
    js, vm, gone, master = nc.jetstream(), some_id(), some_id(), tmp_path / "master.key"
    sealed = await vault.seal(vm, TEXT)
    await vault.seal(gone, TEXT)
    await vault.destroy(gone)
    for body in (b"hi", b"x" * masterkey.SIZE, b"y" * 5000):
        await js.publish(subjects.vault_key(vm), body)
        await js.publish(subjects.vault_key(gone), body)
    await js.publish(subjects.vault_key("nobody"), b"hi")

    class These(KeyStore):
        async def names(self) -> set[str]:
            return {vm, gone, "nobody"}

    elsewhere = await other(nc, tmp_path)
    assert await elsewhere.unseal(sealed) == TEXT
    with pytest.raises(Erased):
        await elsewhere.seed_secret(gone, 1)
    for again in (False, True):
        keys = masterkey.begin(master)
        passed = await masterkey.rewrap(These(nc), keys[1:], keys[0])
        assert (passed.changed == 0) == again
    masterkey.finish(master)
    assert await (await other(nc, tmp_path)).unseal(sealed) == TEXT
    await vault.destroy(vm)
    with pytest.raises(Erased):
        await elsewhere.unseal(sealed)


async def test_what_was_sealed_for_one_vm_does_not_open_for_another(vault: Vault) -> None:
    sealed = await vault.seal(some_id(), TEXT)
    await vault.seal(rival := some_id(), "mine")
    with pytest.raises(InvalidTag):
        await vault.unseal(sealed.model_copy(update={"key": rival}))


async def test_a_destroyed_key_is_gone_for_everybody_and_for_good(nc: Client, vault: Vault, tmp_path: Path) -> None:
    sealed = await vault.seal(vm := some_id(), TEXT)
    elsewhere = await other(nc, tmp_path)
    assert await elsewhere.unseal(sealed) == TEXT
    assert vm in await vault.held()
    await vault.destroy(vm)
    await vault.destroy(vm)
    for each in (vault, elsewhere, await other(nc, tmp_path)):
        with pytest.raises(Erased):
            await each.unseal(sealed)
        with pytest.raises(Erased):
            await each.seal(vm, "again")
        with pytest.raises(Erased):
            await each.seed_secret(vm, 1)
    assert vm not in await vault.held()


async def test_a_key_can_be_destroyed_before_it_was_ever_made(vault: Vault) -> None:
    await vault.destroy(vm := some_id())
    with pytest.raises(Erased):
        await vault.seal(vm, TEXT)


async def test_another_master_key_opens_nothing(nc: Client, vault: Vault, tmp_path: Path) -> None:
    sealed = await vault.seal(some_id(), TEXT)
    stranger = Vault.of(nc, tmp_path / "other.key")
    with pytest.raises(WrongMasterKey):
        await stranger.unseal(sealed)


async def test_vaults_that_race_to_make_one_key_agree(nc: Client, vault: Vault, tmp_path: Path) -> None:
    vaults = [vault, *[await other(nc, tmp_path) for _ in range(7)]]
    vm = some_id()
    sealed = await asyncio.gather(*(each.seal(vm, str(n)) for n, each in enumerate(vaults)))
    fresh = await other(nc, tmp_path)
    assert [await fresh.unseal(one) for one in sealed] == [str(n) for n in range(8)]
    assert len({await each.seed_secret(vm, 1) for each in vaults}) == 1


async def test_each_boot_has_a_secret_of_its_own(vault: Vault) -> None:
    one, two = some_id(), some_id()
    secrets = [await vault.seed_secret(vm, boots) for vm in (one, two) for boots in (1, 2, 3)]
    assert len(set(secrets)) == 6
    assert all(len(secret) == 32 and subjects.token(secret) for secret in secrets), "safe in a URL"
    assert await vault.seed_secret(one, 2) == secrets[1]


async def test_neither_text_nor_key_is_ever_stored_in_clear(tmp_path: Path) -> None:
    server: NatsServer = await start_nats(tmp_path)
    async with connection(server.url) as nc:
        await ensure_all(nc.jetstream(), 1)
        vault = Vault.of(nc, tmp_path / "keys" / "master.key")
        vm = some_id()
        await vault.seal(vm, TEXT)
        secret = await vault.seed_secret(vm, 1)
        key = vault._cache[vm]
    await server.stop()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "nats").rglob("*") if path.is_file())
    assert vm.encode() in kept
    for clear in (key, base64.b64encode(key), key.hex().encode(), TEXT.encode(), secret.encode()):
        assert clear not in kept


async def bytes_on_disk(home: Path, *needles: bytes) -> list[str]:
    """The files below a server's home that hold any of these bytes."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return [path.name for path in files if any(needle in path.read_bytes() for needle in needles)]


async def test_a_destroyed_key_is_overwritten_on_disk(tmp_path: Path) -> None:
    """Also one that was wrapped anew before, one whose destruction was cut off, and one moved from the old bucket."""
    server, master = await start_nats(tmp_path), tmp_path / "keys" / "master.key"
    async with connection(server.url) as nc:
        old = await nc.jetstream().create_key_value(KeyValueConfig(bucket=subjects.KEYS, history=1))
        wrapped = {"old": Ring(master).wrap("old", b"o" * 32), "gone": b""}
        await old.put("old", wrapped["old"])
        await old.purge("gone")
        await ensure_all(nc.jetstream(), 1)
        assert await adopt(nc) == 2 and await adopt(nc) == 0
        vault, store = Vault.of(nc, master), KeyStore(nc)
        for vm in ("kept", "plain", "rotated", "cut-off"):
            await vault.seal(vm, TEXT)
            wrapped[vm] = await value(store, vm)
        earlier = wrapped["rotated"]
        keys = masterkey.begin(master)
        await masterkey.rewrap(store, keys[1:], keys[0])
        wrapped |= {vm: await value(store, vm) for vm in ("kept", "plain", "rotated", "cut-off", "old")}
        assert await bytes_on_disk(tmp_path / "nats", *filter(None, wrapped.values()))
        await nc.jetstream().publish(subjects.vault_key("cut-off"), b"")  # a crash behind the tombstone
        assert await vault.held() == {"old", "kept", "plain", "rotated", "cut-off"}
        for vm in ("old", "plain", "rotated", "cut-off", "gone"):
            await vault.destroy(vm)
            with pytest.raises(Erased):
                await Vault.of(nc, master).seed_secret(vm, 1)
        assert await vault.held() == {"kept"}
        kept = wrapped.pop("kept")
        erased = [earlier, *filter(None, wrapped.values())]
        assert await bytes_on_disk(tmp_path / "nats", kept)
        assert await bytes_on_disk(tmp_path / "nats", *erased) == []
    await server.stop()
    assert await bytes_on_disk(tmp_path / "nats", *erased) == []


async def value(store: KeyStore, name: str) -> bytes:
    entry = await store.get(name)
    assert entry is not None and entry.value is not None
    return entry.value


async def test_a_vault_without_its_stream_says_so_and_makes_no_key(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    async with connection(server.url) as nc:
        vault = Vault(KeyStore(nc, timeout=0.2), tmp_path / "master.key")
        for attempt in (vault.seal(some_id(), TEXT), vault.seed_secret(some_id(), 1), vault.destroy(some_id())):
            with pytest.raises(VaultUnavailable):
                await attempt
    await server.stop()


async def test_a_vault_without_its_server_says_so(tmp_path: Path) -> None:
    server = await start_nats(tmp_path)
    async with connection(server.url) as nc:
        await ensure_all(nc.jetstream(), 1)
        vault = Vault(KeyStore(nc, timeout=0.5), tmp_path / "master.key")
        sealed = await vault.seal(vm := some_id(), TEXT)
        await server.kill()
        for attempt in (vault.seal(some_id(), TEXT), vault.destroy(some_id()), vault.held()):
            with pytest.raises(VaultUnavailable):
                await attempt
        assert await vault.unseal(sealed) == TEXT, "a key at hand is used while the bucket cannot be asked"
        server = await start_nats(tmp_path, port=server.port)
        again = Vault(KeyStore(nc, timeout=20), tmp_path / "master.key")
        assert await again.unseal(sealed) == TEXT
        assert vm in await again.held()
    await server.stop()


async def test_secrets_at_the_same_time_are_read_together(nc: Client, tmp_path: Path) -> None:
    """With one request, whether the key of a VM is there, is made now, or was destroyed."""
    vault = await other(nc, tmp_path)
    known, gone, new = ([some_id() for _ in range(30)] for _ in range(3))
    before = {vm: await vault.seed_secret(vm, 1) for vm in (*known, *gone)}
    for vm in gone:
        await vault.destroy(vm)

    class Counted(KeyStore):
        single = 0

        async def get(self, name: str) -> Entry | None:
            self.single += 1
            return await super().get(name)

    store = Counted(nc)
    elsewhere = Vault(store, tmp_path / "master.key")
    asked = [*known, *gone, *new]
    answers = await asyncio.gather(*(elsewhere.seed_secret(vm, 1) for vm in asked), return_exceptions=True)
    found = dict(zip(asked, answers, strict=True))
    assert {vm: found[vm] for vm in known} == {vm: before[vm] for vm in known}
    assert all(isinstance(found[vm], Erased) for vm in gone)
    assert {vm: await vault.seed_secret(vm, 1) for vm in new} == {vm: found[vm] for vm in new}
    assert store.single <= len(new) + 1, "only those that the batch did not have"


async def test_many_secrets_are_those_of_each(nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that were destroyed, were never made, or are junk, are left to a closer look."""
    monkeypatch.setattr("eventstore.vault.keystore.MOST_TOGETHER", 7)
    vault, quick = await other(nc, tmp_path), QuickClient()
    assert nc.connected_url is not None
    await quick.connect(nc.connected_url.geturl())
    known, gone = ([some_id() for _ in range(20)] for _ in range(2))
    expected = {vm: [await vault.seed_secret(vm, boots) for boots in (3, 4)] for vm in (*known, *gone)}
    for vm in gone:
        await vault.destroy(vm)
    junk, never = some_id(), some_id()
    await nc.publish(subjects.vault_key(junk), b"junk")
    await nc.flush()
    many = Vault.of(quick, tmp_path / "master.key")
    found = await many.seed_secrets(dict.fromkeys([junk, *gone, *known, never], (3, 4)))
    assert found == {vm: expected[vm] for vm in known}
    assert await Vault.of(nc, tmp_path / "master.key").seed_secrets({known[0]: [3]}) == {}
    await quick.close()


async def test_a_process_that_may_store_no_key_waits_for_that_of_handlers(nc: Client, tmp_path: Path) -> None:
    vm, reader = some_id(), Vault.of(nc, tmp_path / "master.key", creates=False)
    waiting = asyncio.create_task(reader.seed_secret(vm, 1))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert vm not in await reader.held()

    handlers = await other(nc, tmp_path)
    await handlers.prepare(vm)

    assert await waiting == await handlers.seed_secret(vm, 1)


async def test_it_does_not_wait_for_ever(nc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.vault.vault.PATIENCE", 0.05)
    reader = Vault.of(nc, tmp_path / "master.key", creates=False)
    with pytest.raises(VaultUnavailable, match="not created the key"):
        await reader.seed_secret(some_id(), 1)


async def test_a_key_that_is_destroyed_ends_the_wait(nc: Client, vault: Vault, tmp_path: Path) -> None:
    vm, reader = some_id(), Vault.of(nc, tmp_path / "master.key", creates=False)
    waiting = asyncio.create_task(reader.seed_secret(vm, 1))
    await asyncio.sleep(0.02)
    await vault.destroy(vm)
    with pytest.raises(Erased):
        await waiting


async def test_a_key_is_prepared_once_and_not_after_its_end(nc: Client, vault: Vault, tmp_path: Path) -> None:
    sealed = await vault.seal(vm := some_id(), TEXT)
    elsewhere = await other(nc, tmp_path)
    await asyncio.gather(vault.prepare(vm), elsewhere.prepare(vm), elsewhere.prepare(vm))
    assert await elsewhere.unseal(sealed) == TEXT

    await vault.destroy(vm)
    with pytest.raises(Erased):
        await (await other(nc, tmp_path)).prepare(vm)
    assert vm not in await vault.held()
