"""The one page of the console, and the page that says what is missing."""

import html
from collections.abc import Mapping, Sequence

#: Under this path are the files; the next part of a path is the digest of all of them.
FILES = "/console/files"

#: What the page may load and do. Its scripts and styles come from files of this gateway only.
#: Scripts cannot turn text into code: `lit-html` makes its templates, and `nebula` the address of our own worker.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "worker-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types lit-html nebula"
)
HEADERS: Mapping[str, str] = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}

#: What a file may do by itself. A worker has the policy of its own file, and the log is read in one.
OF_FILES = "default-src 'none'; script-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"


def page(template: str, digest: str) -> str:
    """The page, whose addresses name the digest of the files. `template`: the content of `index.html`."""
    return template.replace("{base}", f"{FILES}/{digest}")


def incomplete(missing: Sequence[str], command: str) -> str:
    """The page of a console whose packages are not installed."""
    names = ", ".join(missing)
    return MISSING.format(names=html.escape(names), command=html.escape(command))


MISSING = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Nebula: the console is incomplete</title>
<h1>The console is incomplete</h1>
<p>These packages are not installed: {names}.</p>
<p>Run <code>{command}</code> on the host of this gateway while it can reach an npm registry, and restart the gateway.
Everything else works: the API under <code>/v1</code>, and the command <code>nebula</code>.</p>
"""
