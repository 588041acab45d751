"""Which mirror of Debian this host uses, so that an image can be built from the same one."""

import shlex
from collections.abc import Iterator
from pathlib import Path

APT = Path("/etc/apt")


def mirror_lines(suite: str, apt: Path = APT) -> list[str]:
    """`deb URI SUITE main` for `suite`, its updates and its security fixes, from the host's own apt sources.

    Empty if the host has no source for `suite` (it has another distribution or release): then use Debian's public
    mirror.
    """
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    lines = [f"deb {uri} {name} main" for uri, name in _sources(apt) if name in wanted]
    return lines if any(line.split()[2] == suite for line in lines) else []


def _sources(apt: Path) -> Iterator[tuple[str, str]]:
    """(URI, suite) of each binary source that offers the component main, in both of apt's formats."""
    for path in sorted([apt / "sources.list", *apt.glob("sources.list.d/*.list")]):
        if path.exists():
            yield from _one_line_format(path.read_text())
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        yield from _deb822_format(path.read_text())


def _one_line_format(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["deb"]:
            continue
        if len(words) > 1 and words[1].startswith("["):  # [option=value …]
            end = next((n for n, word in enumerate(words) if word.endswith("]")), len(words))
            del words[1 : end + 1]
        if "main" in words[3:]:
            yield words[1], words[2]


def _deb822_format(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in "\n".join(lines).split("\n\n"):
        fields: dict[str, list[str]] = {}
        name = ""
        for line in stanza.splitlines():
            value = line
            if not line[:1].isspace():
                name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), []).extend(value.split())
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        if "main" in fields.get("components", []):
            yield from ((uri, suite) for uri in fields.get("uris", []) for suite in fields.get("suites", []))
