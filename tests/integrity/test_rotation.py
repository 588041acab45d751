"""The master key is exchanged while everything runs, and nothing is lost wherever that is cut off."""

from pathlib import Path
from typing import Any

import pytest

from eventstore.vault import masterkey
from eventstore.vault.keystore import KeyStore
from eventstore.vault.vault import Erased, Vault, WrongMasterKey
from runtime import subjects
from tests.integrity.logs import Log, running

VMS = [f"vm-{number}" for number in range(12)]


async def rotate(log: Log, path: Path) -> masterkey.Rewrapped:
    keys = masterkey.begin(path)
    return await masterkey.rewrap(KeyStore(log.nc), keys[1:], keys[0])


async def test_rotation(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    async with running() as log:
        runs_on = Vault.of(log.nc, path)
        secrets = {vm: await runs_on.seal(vm, f"secret of {vm}") for vm in VMS}
        seeds = {vm: await runs_on.seed_secret(vm, 1) for vm in VMS}
        await runs_on.destroy("vm-3")
        old = path.read_bytes()
        assert await rotate(log, path) == masterkey.Rewrapped(changed=11, already=0)
        assert path.stat().st_mode & 0o777 == 0o600
        secrets["fresh"] = await runs_on.seal("fresh", "secret of fresh")
        assert await rotate(log, path) == masterkey.Rewrapped(changed=0, already=12)
        masterkey.finish(path)
        assert len(path.read_text().split()) == 1
        for vault in (runs_on, Vault.of(log.nc, path)):
            for vm, sealed in secrets.items():
                if vm == "vm-3":
                    with pytest.raises(Erased):
                        await vault.unseal(sealed)
                else:
                    assert await vault.unseal(sealed) == f"secret of {vm}"
                    assert vm == "fresh" or await vault.seed_secret(vm, 1) == seeds[vm]
        stale = tmp_path / "stale.key"
        stale.write_bytes(old)
        with pytest.raises(WrongMasterKey):
            await Vault.of(log.nc, stale).unseal(secrets["vm-1"])
        found = await log.nc.jetstream().stream_info(subjects.VAULT)
        assert found.state.messages == 13  # no older revision, wrapped with the old key, is left


@pytest.mark.parametrize("survive", range(0, 12, 3))
async def test_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survive: int) -> None:
    path = tmp_path / "master.key"
    async with running() as log:
        before = Vault.of(log.nc, path)
        secrets = {vm: await before.seal(vm, vm) for vm in VMS}
        done = 0
        update = KeyStore.put

        async def fail(self: KeyStore, *args: Any, **kwargs: Any) -> int:
            nonlocal done
            if done == survive:
                raise ConnectionError("pulled the plug")
            done += 1
            return await update(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(KeyStore, "put", fail)
            with pytest.raises(ConnectionError):
                await rotate(log, path)
        halfway = path.read_bytes()
        for vault in (before, Vault.of(log.nc, path)):
            assert [await vault.unseal(sealed) for sealed in secrets.values()] == VMS
        assert await rotate(log, path) == masterkey.Rewrapped(changed=12 - survive, already=survive)
        assert path.read_bytes() == halfway  # the same rotation, not another key
        masterkey.finish(path)
        vault = Vault.of(log.nc, path)
        assert [await vault.unseal(sealed) for sealed in secrets.values()] == VMS


async def test_destroyed_and_made_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation never brings a destroyed key back."""
    path = tmp_path / "master.key"
    async with running() as log:
        vault = Vault.of(log.nc, path)
        secrets = {vm: await vault.seal(vm, vm) for vm in VMS[:3]}
        update = KeyStore.put

        async def meddled(self: KeyStore, key: str, *args: Any, **kwargs: Any) -> int:
            if key == "vm-1" and args[0]:
                await vault.destroy("vm-1")
            return await update(self, key, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(KeyStore, "put", meddled)
            assert await rotate(log, path) == masterkey.Rewrapped(changed=2, already=0)
        with pytest.raises(Erased):
            await vault.unseal(secrets["vm-1"])
        assert await vault.held() == {"vm-0", "vm-2"}


async def test_foreign_key_stops_it(tmp_path: Path) -> None:
    async with running() as log:
        await Vault.of(log.nc, tmp_path / "other.key").seal("vm", "x")
        with pytest.raises(WrongMasterKey):
            await rotate(log, tmp_path / "master.key")


@pytest.mark.parametrize(
    ("name", "junk"),
    [
        ("unknown", b"x" * masterkey.SIZE),
        ("unknown", b"\x00" * masterkey.SIZE + b"y"),
        ("wrapped-for-another", b""),
        ("not$a$token", b"x" * masterkey.SIZE),
        ("aaa", b"hi"),
    ],
    ids=["as large as a key", "larger", "a key on another name", "under an odd name", "in front of all"],
)
async def test_junk_is_passed_over_and_named(tmp_path: Path, name: str, junk: bytes) -> None:
    path = tmp_path / "master.key"
    async with running() as log:
        vault = Vault.of(log.nc, path)
        secrets = {vm: await vault.seal(vm, vm) for vm in VMS[:3]}
        if not junk:
            [stored, *_] = await KeyStore(log.nc).values("vm-0")
            junk = stored.value or b""
        await log.nc.jetstream().publish(f"nebula.vault.{name}", junk)
        assert await rotate(log, path) == masterkey.Rewrapped(changed=3, already=0, not_opened=(name,))
        assert await rotate(log, path) == masterkey.Rewrapped(changed=0, already=3, not_opened=(name,))
        masterkey.finish(path)
        reader = Vault.of(log.nc, path)
        assert [await reader.unseal(sealed) for sealed in secrets.values()] == VMS[:3]


def test_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    for content in (b"", b"c2hvcnQ=\n", b"?\n"):
        path.write_bytes(content)
        with pytest.raises(WrongMasterKey):
            masterkey.master_keys(path)
