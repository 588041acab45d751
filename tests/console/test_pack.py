"""The modules that every page needs as one file: it is what a browser would run, and nothing is there twice."""

import re
import subprocess
from pathlib import Path

import pytest

from gateway.console import vendor
from gateway.console.files import WEB, read
from gateway.console.pack import CannotJoin, at, in_order, joined
from gateway.console.served import APP, STYLES, WORKER, served
from tests.console.bed import needs_browser
from tests.console.test_modules import NODE

A = """import {b, two as second} from "./b.js";
import "./c.js";
import {far} from "./far/away.js";

export const a = b + second;
export async function later() { return (await import("./later.js")).x + far; }
"""
B = """export class K {}
export function b() { return 1; }
const two = 2;
export {two, K as Same};
"""
TEXTS = {
    "a.js": A,
    "b.js": B,
    "c.js": 'import{b}from"./b.js";globalThis.c = b();export{b}from"./b.js";\n//# sourceMappingURL=c.js.map',
    "far/away.js": 'export const far = import.meta.url;\n/** @type {import("../b.js").K} */\n',
    "later.js": 'import {b} from "./b.js";\nimport {y} from "./y.js";\nexport const x = b() + y;\n',
    "y.js": "export const y = 40;\n",
}


def run(folder: Path, texts: dict[str, str], program: str) -> str:
    """What a program prints that may import these modules."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "main.js").write_text(program)
    done = subprocess.run([NODE, folder / "main.js"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_joined_modules_are_the_same_modules(tmp_path: Path) -> None:
    program = """
        import {%s} from "./a.js";
        const {a, later} = %s;
        console.log([a, globalThis.c, (await later()).endsWith("/far/away.js"), (await later()).slice(0, 7)].join(" "));
    """
    plain = run(tmp_path / "plain", TEXTS, program % ("a as one, later as two", "{a: one, later: two}"))
    together = joined(TEXTS, "a.js")
    assert set(together) == {"a.js", "later.js", "y.js"}
    assert run(tmp_path / "joined", together, program % ("$a", "$a")) == plain
    assert "sourceMappingURL" not in together["a.js"]


def test_what_is_loaded_later_takes_the_same_one(tmp_path: Path) -> None:
    texts = {
        "entry.js": 'import {K} from "./k.js";\nexport const here = K;\n',
        "k.js": "export class K {}\n",
        "sub/later.js": 'import {K as Mine} from "../k.js";\nimport "../k.js";\nexport const there = Mine;\n',
    }
    together = joined(texts, "entry.js")
    program = (
        'import {$entry} from "./entry.js"; import {there} from "./sub/later.js"; console.log(there === $entry.here);'
    )
    assert run(tmp_path, together, program) == "true"


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        ({"a.js": 'import {b} from "./b.js";\n', "b.js": 'import "./a.js";\n'}, "imports itself"),
        ({"a.js": 'import {b} from "./none.js";\n'}, "no module none.js"),
        ({"a.js": 'import * as b from "./b.js";\n', "b.js": ""}, "a.js: import"),
        ({"a.js": 'import b from "./b.js";\n', "b.js": ""}, "a.js: import"),
        ({"a.js": "export default 1;\n"}, "a.js: export"),
        ({"a.js": "export let a = 1;\n"}, "a.js: export"),
        ({"a.js": "export function* a() {}\n"}, "a.js: export"),
        ({"a.js": 'import "./b.js";\n', "b.js": "", "c.js": 'await import("./b.js");\n'}, "c.js loads ./b.js"),
        ({"a.js": 'import "./b-c.js";\nimport "./b_c.js";\n', "b-c.js": "", "b_c.js": ""}, "two paths are alike"),
    ],
)
def test_what_it_does_not_know_stops_it(texts: dict[str, str], why: str) -> None:
    with pytest.raises(CannotJoin, match=re.escape(why)):
        joined(texts, "a.js")


def test_each_style_sheet_is_in_the_one_that_is_served() -> None:
    assert sorted(path.name for path in WEB.glob("*.css")) == sorted(STYLES)


@needs_browser
def test_the_console_as_it_is_served(tmp_path: Path) -> None:
    texts, others = read(), vendor.installed().joined()
    template = texts.pop("index.html")
    assert set(re.findall(r'"\{base\}/([^"]+)"', template)) == {APP, STYLES[0], "icon.svg"}
    found = served(texts, others)
    scripts = {name: text for name, text in texts.items() if name.endswith(".js")}
    together = {name for name in {**scripts, **others} if name not in found}
    everything = in_order({**scripts, **others}, [*together, APP])
    for name in everything:
        assert f"const ${re.sub(r'[^A-Za-z0-9]', '_', name.removesuffix('.js'))} = (() => {{" in found[APP], name
    assert {f"vendor/{path}" for path in vendor.JOINED} <= together, "a file of lit-html that nobody uses is not joined"
    for name in [name for name in found if name.endswith(".js")]:
        for origin in re.findall(r'^import (?:\{[^}]*\} from )?"([^"]+)";', found[name], re.MULTILINE):
            target = at(name, origin)
            assert target in found or target.startswith("vendor/"), f"{name} imports {origin}"
        exports = set(re.findall(r"^export \{([^}]*)\};$", found[APP], re.MULTILINE)[-1].split(", "))
        taken = re.findall(r'^import \{(\$\w+)\} from "[./]+app\.js";', found[name], re.MULTILINE)
        assert set(taken) <= exports, name
    assert "document" not in re.sub(r"/\*.*?\*/", "", found[WORKER], flags=re.DOTALL), "a worker has no document"
    for name in (APP, WORKER, "pages/vms.js", "pages/vm.js"):
        (tmp_path / "checked.mjs").write_text(found[name])
        done = subprocess.run([NODE, "--check", tmp_path / "checked.mjs"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_name_that_is_imported_is_exported() -> None:
    """Joined, a name that does not exist is undefined, and no error."""
    texts = {name: text for name, text in read().items() if name.endswith(".js")}
    for name, text in texts.items():
        for names, origin in re.findall(r'^import \{([^}]*)\} from "([^"]+)";', text, re.MULTILINE):
            target = (WEB / name).parent.joinpath(origin).resolve().relative_to(WEB).as_posix()
            if target.startswith("vendor/"):
                continue
            exported = set(
                re.findall(r"^export (?:async )?(?:function|class|const) ([\w$]+)", texts[target], re.MULTILINE)
            )
            for group in re.findall(r"^export \{([^}]*)\}", texts[target], re.MULTILINE):
                exported |= {part.split()[-1] for part in group.split(",") if part.strip()}
            wanted = {part.split()[0] for part in names.split(",") if part.strip()}
            assert wanted <= exported, f"{name} imports {wanted - exported} from {origin}"
