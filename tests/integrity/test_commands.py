"""`nebula verify`, `export`, `import`, `vault` and `schemas`, as a shell would call them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from cli.commands import log as log_commands, vault as vault_commands
from domain.vm import Spec, VmRequested
from eventstore.log.envelope import Ref
from eventstore.log.store import Change, Tip
from eventstore.vault.vault import Vault
from tests.event_keys import put_keys
from tests.integrity import commands
from tests.integrity.commands import Ran
from tests.integrity.logs import CONTEXT, Log, rewrite, running

APP = commands.nebula(log_commands.register, vault_commands.register)


Nebula = Callable[..., Awaitable[Ran]]


@pytest.fixture
def nebula(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Nebula:
    """Runs a command against a log (None: against nothing) to its end."""

    async def run(log: Log | None, *arguments: object) -> Ran:
        monkeypatch.setenv("NEBULA_NATS_URL", log.server.url if log else "nats://127.0.0.1:1")
        if log is not None:
            monkeypatch.setenv("NEBULA_HOME", str(log.home))
        return await commands.ran(APP, capsys, *arguments)

    return run


async def test_export_verify_import(nebula: Nebula, tmp_path: Path) -> None:
    file, again, key = tmp_path / "log.nebula", tmp_path / "again.nebula", tmp_path / "auditor.pub"
    async with running() as log, running() as empty:
        await log.grow(20)
        await log.notary().step()
        await log.grow(5, first=20)
        key.write_bytes((log.home / "checkpoint.pub").read_bytes())
        exported = await nebula(log, "export", file, "-o", "json")
        last = await log.store.last_position()
        assert exported.status == 0
        assert exported.json["signed"] == exported.json["last"] == last  # signed on the spot, where the key is
        assert (await nebula(log, "export", file)).status == 2  # never over another file

        offline = await nebula(None, "verify", "file", file, "--key", key)
        assert offline.status == 0
        assert f"signed up to position {last}" in offline.out
        told = await nebula(log, "--output", "json", "verify", "log")
        assert (told.status, told.json["ok"], told.json["proven"]) == (0, True, last)
        compared = await nebula(log, "verify", "log", "--against", file)
        assert (compared.status, f"compared with {file}" in compared.out) == (0, True)

        assert (await nebula(log, "import", file)).status == 1  # not empty
        restored = await nebula(empty, "import", file, "--key", key, "-o", "json")
        assert (restored.status, restored.json["last"]) == (0, last)
        assert (await nebula(empty, "export", again)).status == 0
        assert again.read_bytes() == file.read_bytes()
        part = await nebula(log, "export", tmp_path / "part", "--after", 3, "--to", 6, "-o", "json")
        assert (part.json["first"], part.json["signed"]) == (4, part.json["last"])


async def test_what_is_wrong_is_told(nebula: Nebula, tmp_path: Path) -> None:
    file, forged = tmp_path / "log", tmp_path / "forged"
    async with running() as log, running() as empty:
        await log.grow(20)
        await log.notary().step()
        await nebula(log, "export", file)
        rewrite(file, forged, lambda documents: [d for d in documents if d.get("position") != 8])
        key = log.home / "checkpoint.pub"
        told = await nebula(None, "verify", "file", forged, "--key", key)
        assert told.status == 1
        assert "position 8" in told.out
        as_json = await nebula(None, "verify", "file", forged, "--key", key, "-o", "json")
        assert as_json.status == 1
        assert 8 in {finding["position"] for finding in as_json.json["findings"]}
        assert (await nebula(empty, "import", forged, "--key", key)).status == 1
        assert await empty.store.last_position() == 0
        await empty.lay((await log.all())[:-1])
        assert (await nebula(empty, "verify", "log", "--key", key, "--against", file)).status == 1


async def test_what_cannot_be_done(nebula: Nebula, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_HOME", str(tmp_path))
    assert (await nebula(None, "verify", "log", "--no-key")).status == 3
    assert (await nebula(None, "verify", "log")).status == 2  # no public key, and none asked for
    assert (await nebula(None, "verify", "file", tmp_path / "none", "--no-key")).status == 2
    (tmp_path / "some.pub").write_text("not a key")
    assert (await nebula(None, "verify", "file", tmp_path / "none", "--key", tmp_path / "some.pub")).status == 2
    (tmp_path / "text").write_text("hello\n")
    assert (await nebula(None, "verify", "file", tmp_path / "text", "--no-key")).status == 1


async def test_rotate(nebula: Nebula) -> None:
    async with running() as log:
        vault = Vault.of(log.nc, log.home / "master.key")
        sealed = await vault.seal("vm", "secret")
        await log.nc.jetstream().publish("nebula.vault.junk", b"x" * 60)
        begun = await nebula(log, "vault", "rotate", "-o", "json")
        assert (begun.status, begun.json["rewrapped"], begun.json["not_opened"]) == (0, 1, ["junk"])
        again = (await nebula(log, "vault", "rotate")).out
        assert "already" in again
        assert "skipped, because no master key opens their content: junk" in again
        assert len((log.home / "master.key").read_text().split()) == 2
        assert (await nebula(log, "vault", "rotate", "--finish")).status == 0
        assert len((log.home / "master.key").read_text().split()) == 1
        assert await vault.unseal(sealed) == "secret"


async def test_schemas(nebula: Nebula, tmp_path: Path) -> None:
    printed = await nebula(None, "schemas")
    assert "asyncapi.json" in printed.json
    written = await nebula(None, "schemas", tmp_path / "out")
    assert len(written.out.splitlines()) == len(printed.json)
    assert (await nebula(None, "schemas", tmp_path / "out")).out == ""


async def test_what_a_vm_was_given_is_revealed_until_it_is_erased(nebula: Nebula) -> None:
    text = "#cloud-config\npassword: correct horse"
    async with running() as log:
        vault = Vault.of(log.nc, log.home / "master.key")
        put_keys(log.home)
        ids = [str(uuid4()) for _ in range(2)]
        for id_ in ids:
            at = datetime.now(UTC)
            requested = VmRequested(
                at=at,
                operation="o",
                fingerprint="f",
                deadline=at,
                vm=id_,
                project="p",
                name="web",
                image="i",
                spec=Spec(vcpus=1, memory_mib=512, disk_gib=4),
                user_data=await vault.seal(id_, text) if id_ == ids[0] else None,
            )
            await log.store.append([Change(Tip(Ref("p", "vm", id_)), [requested])], CONTEXT)
        shown = await nebula(log, "vault", "reveal", ids[0])
        assert (shown.status, shown.out.strip()) == (0, text)
        then = await nebula(log, "vault", "reveal", ids[0], "--at", "1", "-o", "json")
        assert then.json == {"vm": ids[0], "user_data": {"erased": False, "text": text}}
        assert "no user-data" in (await nebula(log, "vault", "reveal", ids[1])).error
        assert "no VM" in (await nebula(log, "vault", "reveal", ids[1], "--at", "1")).error
        assert "no VM" in (await nebula(log, "vault", "reveal", str(uuid4()))).error
        for nonsense in (("a.b",), (ids[0], "--at", "soon")):
            assert (await nebula(log, "vault", "reveal", *nonsense)).status == 2

        await vault.destroy(ids[0])
        gone = await nebula(log, "vault", "reveal", ids[0])
        assert (gone.status, gone.out) == (1, "")
        assert gone.error.startswith("erased: ")
        told = await nebula(log, "vault", "reveal", ids[0], "-o", "json")
        assert told.json["user_data"] == {"erased": True, "size": len(text)}


async def test_a_range_that_holds_nothing_is_not_exported(nebula: Nebula, tmp_path: Path) -> None:
    file = tmp_path / "log.nebula"
    async with running() as log:
        await log.grow(5)
        last = await log.store.last_position()
        for range_ in (("--after", last), ("--after", last + 7), ("--after", 3, "--to", 3)):
            refused = await nebula(log, "export", file, *range_)
            assert refused.status == 1
            assert f"the log ends at {last}" in refused.error
            assert not list(tmp_path.iterdir())
