"""Both of apt's formats, and hosts of another distribution."""

from pathlib import Path

from cli.local.apt_sources import mirror_lines


def test_both_formats(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://old/debian bookworm main\n"
        "deb-src http://one/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/key] http://one/debian bookworm main contrib\n"
        "deb http://tools.example stable main\n"
    )
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb deb-src\nURIs: http://two/debian\nSuites: bookworm bookworm-updates\n# a remark\n"
        "Components: main\n\nTypes: deb\nURIs: http://two/security\nSuites:\n bookworm-security\nComponents: main\n\n"
        "Enabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: bookworm\nComponents: main\n"
    )
    assert mirror_lines("bookworm", tmp_path) == [
        "deb http://one/debian bookworm main",
        "deb http://two/debian bookworm main",
        "deb http://two/debian bookworm-updates main",
        "deb http://two/security bookworm-security main",
    ]


def test_another_distribution_offers_nothing(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://archive.example/ubuntu noble main\n")
    assert mirror_lines("bookworm", tmp_path) == []
