"""`nebula login`, `logout` and `context …`: the platforms that somebody uses, and the tokens for them."""

import getpass
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.client import output
from cli.client.client import VISIBLE, Client, Document, path
from cli.client.command import trust_in
from cli.client.contexts import Context, Contexts, Login, Store
from cli.client.credentials import authority_of, same
from cli.client.errors import CliError, Refused, Unreachable, Usage
from cli.client.files import readable
from cli.client.platform_url import HERE, platform_url
from cli.client.session import Output, note
from runtime.text.plain import plain

app = typer.Typer(help="The platforms that you have logged in to.", no_args_is_help=True)

#: The name that means the platform of `nebula up` on this machine: no context is in use.
LOCAL = "local"
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The context's name.")]


def register(commands: typer.Typer, panel: str) -> None:
    commands.command("login", rich_help_panel=panel)(login)
    commands.command("logout", rich_help_panel=panel)(logout)
    commands.add_typer(app, name="context", rich_help_panel=panel)


def login(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The platform's address.")],
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read a token from standard input.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the context (the platform's host).")] = None,
    ca: Annotated[Path | None, typer.Option(help="The platform's own authority (PEM), instead of the host's.")] = None,
) -> None:
    """Log in to a platform, and use it from now on.

    Without --token-stdin you log in at the platform's OIDC issuer, in a browser on any device; if it has none, you
    are asked for a token. The token is kept in ~/.config/nebula, and is sent to this platform only.

    The authority of an earlier login to this URL is trusted again, and no other, unless --ca names a new one.
    """
    store = _store(context)
    at = platform_url(url)
    if at.scheme != "https" and not (at.host in HERE or _LOOPBACK.fullmatch(at.host)):
        raise Usage(f"{at.url} has no TLS: everybody on the way could read the token; give an https URL")
    chosen = _free_name(store.read(), name, at.host.strip("[]").replace(":", "-"), at.url)
    found: Login | None = None
    pinned = ca.absolute() if ca is not None else authority_of(at.url, context.obj["home"], store)
    trust = trust_in(readable(pinned) if pinned is not None else None)
    offer = {} if token_stdin else _offer(Client(at.url, None, note, trust=trust))
    token: str | None = None
    if isinstance(offer.get("oidc"), dict):
        from cli.client.issuer import log_in  # (loaded when it is needed, because it loads slowly)

        token, found = log_in(offer["oidc"], _say)
    elif offer.get("token_needed", True):
        token = _given(token_stdin)
    me = Client(at.url, token, note, trust=trust).get(path("me"))
    logged_in = Context(at.url, token, found, str(pinned) if pinned is not None else None)
    store.update(lambda known: Contexts(chosen, {**known.all, chosen: logged_in}))
    output.line(f"logged in to {at.url} as {me.get('principal')}; the context {chosen} is in use")


def logout(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The context (the one in use).")] = None,
) -> None:
    """Forget the token of a context. A login at an issuer ends there too; other tokens stay valid until revoked."""
    store = _store(context)
    known = store.read()
    chosen = name or known.current
    if chosen is None:
        raise Usage("no context is in use: name one")
    ended = _named(known, chosen)
    store.update(lambda found: _with(found, chosen, replace(_named(found, chosen), token=None, login=None)))
    if ended.login is not None:
        from cli.client.issuer import revoke

        try:
            revoke(ended.login)
        except (CliError, Unreachable) as error:
            note(f"the login was not ended at the issuer: {error}")
    output.line(f"logged out of {ended.url}")


@app.command("list")
def listed(
    context: typer.Context,
    format_: Annotated[Output | None, typer.Option("--output", "-o", help="For people, or for programs.")] = None,
) -> None:
    """List the contexts. Tokens are not shown."""
    known = _store(context).read()
    rows = [_row(name, each, known.current) for name, each in sorted(known.all.items())]
    if (format_ or context.obj["output"]) is Output.JSON:
        output.emit_json({"items": rows})
    else:
        output.emit(output.table(rows, {"NAME": "name", "URL": "url", "IN USE": "in_use", "LOGIN": "login"}))


@app.command("use")
def use(context: typer.Context, name: Name) -> None:
    """Use a context from now on; `local` is the platform of `nebula up` on this machine."""

    def change(known: Contexts) -> Contexts:
        if name == LOCAL:
            return replace(known, current=None)
        _named(known, name)
        return replace(known, current=name)

    _store(context).update(change)
    output.line(f"{name} is in use")


@app.command("remove")
def remove(context: typer.Context, name: Name) -> None:
    """Forget a context and its token."""

    def change(known: Contexts) -> Contexts:
        _named(known, name)
        left = {each: found for each, found in known.all.items() if each != name}
        return Contexts(None if known.current == name else known.current, left)

    _store(context).update(change)
    output.line(f"the context {name} is removed")


def _store(context: typer.Context) -> Store:
    store: Store = context.obj["store"]
    return store


def _row(name: str, context: Context, current: str | None) -> Mapping[str, object]:
    sort = "none" if context.token is None else "token" if context.login is None else context.login.issuer
    renewed = context.login and datetime.fromtimestamp(context.login.renew_at, UTC).isoformat()
    return {"name": name, "url": context.url, "in_use": name == current, "login": sort, "renewed_after": renewed}


def _named(known: Contexts, name: str) -> Context:
    """Raises Usage."""
    if name not in known.all:
        names = ", ".join(sorted(known.all)) or "none"
        raise Usage(f"there is no context {name!a}; there are: {names}")
    return known.all[name]


def _with(known: Contexts, name: str, context: Context) -> Contexts:
    return replace(known, all={**known.all, name: context})


def _free_name(known: Contexts, given: str | None, host: str, url: str) -> str:
    """The name of a new context: it is free, or its platform is the same. Raises Usage."""
    name = given or next((each for each, found in known.all.items() if same(found.url, url)), host)
    if not _NAME.fullmatch(name) or name == LOCAL:
        raise Usage(f"{name!a} cannot be the name of a context: give --name (letters, digits, dots, hyphens)")
    if name in known.all and not same(known.all[name].url, url):
        raise Usage(f"the context {name} is of {known.all[name].url}: give another --name, or remove it")
    return name


def _offer(platform: Client) -> Document:
    """The ways to log in; none for a platform that does not know this question."""
    try:
        return platform.get(path("login"))
    except Refused as error:
        if error.status not in (401, 404):
            raise
        return {}


def _given(from_stdin: bool) -> str:
    """A token from standard input, or typed without an echo. Raises Usage."""
    if not from_stdin and not sys.stdin.isatty():
        raise Usage("this platform offers no login by a browser: give a token by --token-stdin")
    token = (sys.stdin.readline(16_385) if from_stdin else getpass.getpass("token: ")).strip()
    if not VISIBLE.fullmatch(token) or len(token) > 16_384:
        raise Usage("a token has to be one line of visible ASCII characters, without spaces")
    return token


def _say(text: str) -> None:
    sys.stderr.write(f"nebula: {plain(text, keep='')}\n")
    sys.stderr.flush()
