"""Log files are kept small while programs append to them."""

from pathlib import Path

from runtime.local.child import spawn
from runtime.local.logfiles import KEPT, rotate


def test_a_full_file_is_copied_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "role.log"
    with file.open("ab", buffering=0) as writer:
        for number in range(KEPT + 2):
            writer.write(b"%d " % number * 40)
            assert not rotate(file, 1000)
            assert rotate(file, 50)
            assert file.read_bytes() == b""
        writer.write(b"last")
    assert file.read_bytes() == b"last"
    copies = {path.name: path.read_bytes()[:2] for path in tmp_path.iterdir() if path != file}
    assert copies == {f"role.log.{n}": b"%d " % (KEPT + 2 - n) for n in range(1, KEPT + 1)}
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in copies} == {0o600}


async def test_a_childs_log_is_for_its_owner_only_also_one_from_before(tmp_path: Path) -> None:
    file = tmp_path / "role.log"
    file.touch()
    file.chmod(0o644)
    child = await spawn("role", ["true"], file)
    await child.process.wait()
    assert file.stat().st_mode & 0o777 == 0o600
