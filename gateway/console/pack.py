"""Joins the modules that every page needs to one file: a browser asks once for it, and not once for each module.

Each module becomes a function that returns its exports, in the order in which a browser would run them:

    const $core_html = (() => {
    const {html: html, nothing: nothing} = $vendor_lit_html_lit_html;
    …
    return {html: html, icon: icon};
    })();

A module that is loaded later takes from this file what it imports of the joined ones, so there is one of each. Only
the forms of `import` and `export` that the console's modules have are known; another one stops the start of a gateway.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping

_START = r"(?:^|(?<=[;}]))"  # of a statement; the modules of others are one long line
_IMPORT = re.compile(_START + r'import\s*(?:\{([^}]*)\}\s*from\s*)?"([^"]+)";', re.MULTILINE)
_DECLARED = re.compile(r"^export ((?:async )?function|class|const) ([\w$]+)", re.MULTILINE)
_LISTED = re.compile(_START + r'export\s*\{([^}]*)\}(?:\s*from\s*"([^"]+)")?;', re.MULTILINE)
#: An `import(…)` that runs; those in comments name types.
_LATER = re.compile(r'\bimport\("([^"]+)"\)(?!\.[A-Z])')
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
_UNKNOWN = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


class CannotJoin(Exception):
    """A module has an import or an export of a form that is not known here; or modules import each other."""


def joined(texts: Mapping[str, str], entry: str, others: Iterable[str] = ()) -> dict[str, str]:
    """All modules, with one file `entry` in place of it, of `others`, and of all that they import. Raises CannotJoin.

    `texts`: the text of each module by its path.
    """
    order = in_order(texts, [*others, entry])
    names = {name: f"${re.sub(r'[^A-Za-z0-9]', '_', name.removesuffix('.js'))}" for name in order}
    if len({*names.values()}) < len(names):
        raise CannotJoin(f"two paths are alike: {sorted(names)}")
    parts = [_function(name, texts[name], names, entry) for name in order]
    exported = f"export {{{', '.join(names.values())}}};\n"
    rest = {name: _later(name, text, names, entry) for name, text in texts.items() if name not in names}
    return {**rest, entry: "".join([*parts, exported])}


def in_order(texts: Mapping[str, str], wanted: Iterable[str]) -> list[str]:
    """These modules and all that they import, each after those that it imports. Raises CannotJoin."""
    found: dict[str, bool] = {}

    def visit(name: str) -> None:
        if name in found:
            if not found[name]:
                raise CannotJoin(f"{name} imports itself by way of others")
            return
        if name not in texts:
            raise CannotJoin(f"there is no module {name}")
        found[name] = False
        text = texts[name]
        for origin in [each[2] for each in _IMPORT.finditer(text)] + [each[2] for each in _LISTED.finditer(text)]:
            if origin:
                visit(at(name, origin))
        del found[name]
        found[name] = True

    for each in wanted:
        visit(each)
    return list(found)


def at(name: str, origin: str) -> str:
    """The path of what a module imports."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), origin))


def _function(name: str, text: str, names: Mapping[str, str], entry: str) -> str:
    """A module as a function."""
    exports: list[str] = []

    def declared(found: re.Match[str]) -> str:
        exports.append(f"{found[2]}: {found[2]}")
        return f"{found[1]} {found[2]}"

    def listed(found: re.Match[str]) -> str:
        origin = "" if found[2] is None else f"{names[at(name, found[2])]}."
        for each in _pairs(found[1]):
            exports.append(f"{each[1]}: {origin}{each[0]}")
        return ""

    def later(found: re.Match[str]) -> str:
        target = at(name, found[1])
        if target in names:
            return f"Promise.resolve({names[target]})"
        return f'import("./{posixpath.relpath(target, posixpath.dirname(entry) or ".")}")'

    body = _IMPORT.sub(lambda found: _taken(found, names[at(name, found[2])]), text)
    body = _LATER.sub(later, _LISTED.sub(listed, _DECLARED.sub(declared, body)))
    body = _SOURCE_MAP.sub("", body)
    if unknown := _UNKNOWN.search(body):
        raise CannotJoin(f"{name}: {unknown[0]}")
    own = posixpath.relpath(name, posixpath.dirname(entry) or ".")
    body = body.replace("import.meta.url", f'new URL("{own}", import.meta.url).href')
    return f"const {names[name]} = (() => {{\n{body}\nreturn {{{', '.join(exports)}}};\n}})();\n"


def _later(name: str, text: str, names: Mapping[str, str], entry: str) -> str:
    """A module that is loaded later: it takes from the joined file what that has."""
    path = posixpath.relpath(entry, posixpath.dirname(name) or ".")
    path = path if path.startswith(".") else f"./{path}"

    imported: set[str] = set()

    def taken(found: re.Match[str]) -> str:
        joined_as = names.get(at(name, found[2]))
        if joined_as is None:
            return found[0]
        statement = "" if joined_as in imported else f'import {{{joined_as}}} from "{path}"; '
        imported.add(joined_as)
        return statement + _taken(found, joined_as)

    for found in _LATER.finditer(text):
        if at(name, found[1]) in names:
            raise CannotJoin(f"{name} loads {found[1]} later, which is there already: import it")
    return _IMPORT.sub(taken, text)


def _taken(found: re.Match[str], joined_as: str) -> str:
    """The statement in place of an import of a joined module. It has as many lines."""
    if found[1] is None:
        return ""
    given = ", ".join(f"{name}: {mine}" for name, mine in _pairs(found[1]))
    return f"const {{{given}}} = {joined_as};" + "\n" * found[0].count("\n")


def _pairs(names: str) -> list[tuple[str, str]]:
    """`a, b as c` as pairs: the name, and the name after `as`."""
    parts = [part.split() for part in names.split(",") if part.strip()]
    return [(part[0], part[-1]) for part in parts]
