"""Makes commands of the client. A command is a function of a Session and its own parameters.

The common options (the platform's address, the output format) are added to each command's signature here. So they may
be given before or after the command's name; the later one counts.
"""

import functools
import inspect
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from cli.client.client import Client
from cli.client.contexts import Store, config_folder
from cli.client.credentials import DEFAULT_URL, Given, target
from cli.client.errors import CliError, Exit, Interrupted, Usage
from cli.client.session import DEFAULT_PROJECT, DEFAULT_TIMEOUT, Output, Session, note
from runtime.text.plain import plain

if TYPE_CHECKING:
    import ssl

P = ParamSpec("P")
Body = Callable[Concatenate[Session, P], None]

#: Exceptions of Python when an answer lacks a field, or a field has another type.
INVALID_ANSWER = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

EVERYWHERE = "Everywhere"
WAITING = "Waiting"

Url = Annotated[
    str | None,
    typer.Option(
        help=f"The platform's address (NEBULA_URL; the context in use; {DEFAULT_URL}).", rich_help_panel=EVERYWHERE
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="Bearer token (NEBULA_TOKEN, for NEBULA_URL; else that of `nebula login`, or the one that `up` keeps).",
        rich_help_panel=EVERYWHERE,
    ),
]
Project = Annotated[
    str | None,
    typer.Option(help=f"Project (NEBULA_PROJECT; {DEFAULT_PROJECT}).", rich_help_panel=EVERYWHERE),
]
Format = Annotated[
    Output | None, typer.Option("--output", "-o", help="For people, or for programs.", rich_help_panel=EVERYWHERE)
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Do not wait for the operation to end.", rich_help_panel=WAITING)
]
Timeout = Annotated[
    float | None,
    typer.Option(help=f"Seconds to wait at most ({DEFAULT_TIMEOUT:.0f}).", rich_help_panel=WAITING),
]
Key = Annotated[
    str | None,
    typer.Option(help="Idempotency-Key, to repeat a call safely (random).", rich_help_panel=WAITING),
]

#: The moment of a read.
At = Annotated[str | None, typer.Option(help="As it was at a log position or an RFC 3339 time.")]

QUERY = {"url": Url, "token": Token, "project": Project, "output": Format}
PATIENT = {**QUERY, "timeout": Timeout}
COMMAND = {**PATIENT, "no_wait": NoWait, "key": Key}


def root(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The platform.")] = None,
    token: Annotated[str | None, typer.Option(help="Bearer token.")] = None,
    environment_url: Annotated[str | None, typer.Option(envvar="NEBULA_URL", hidden=True)] = None,
    environment_token: Annotated[str | None, typer.Option(envvar="NEBULA_TOKEN", hidden=True)] = None,
    project: Annotated[str | None, typer.Option(help="Project.", envvar="NEBULA_PROJECT")] = None,
    output: Annotated[Output | None, typer.Option("--output", "-o", help="For people, or for programs.")] = None,
    home: Annotated[Path | None, typer.Option(envvar="NEBULA_HOME", hidden=True, readable=False)] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for operations.")] = False,
    config: Annotated[Path | None, typer.Option(envvar="XDG_CONFIG_HOME", hidden=True, readable=False)] = None,
) -> None:
    """The options in front of the command's name. Its help text is in main.py."""
    context.obj = {
        "url": url,
        "token": token,
        "environment": Given(environment_url or None, environment_token or None),
        "project": project,
        "output": output,
        "home": home,
        "no_wait": no_wait,
        "store": Store(config_folder(config)),
    }


def query(app: typer.Typer, name: str, panel: str | None = None) -> Callable[[Body[P]], Body[P]]:
    """A command that only reads."""
    return _register(app, name, QUERY, panel)


def patient(app: typer.Typer, name: str) -> Callable[[Body[P]], Body[P]]:
    """A command that reads and may wait."""
    return _register(app, name, PATIENT)


def command(app: typer.Typer, name: str) -> Callable[[Body[P]], Body[P]]:
    """A command that changes something: one unsafe call, under one idempotency key."""
    return _register(app, name, COMMAND)


def _register(
    app: typer.Typer, name: str, shared: dict[str, Any], panel: str | None = None
) -> Callable[[Body[P]], Body[P]]:
    def decorate(body: Body[P]) -> Body[P]:
        signature = inspect.signature(body, eval_str=True)
        own = list(signature.parameters.values())[1:]

        @functools.wraps(body)
        def run(context: typer.Context, **given: Any) -> None:
            mine = {parameter.name: given.pop(parameter.name) for parameter in own}
            session = _session({**context.obj, **{k: v for k, v in given.items() if v not in (None, False)}})
            _run(functools.partial(body, session, **mine), session, repeatable="key" in shared)

        added = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, default=False if kind is NoWait else None, annotation=kind
            )
            for option, kind in shared.items()
        ]
        first = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        run.__signature__ = signature.replace(parameters=[first, *keywords, *added])  # type: ignore[attr-defined]
        app.command(name, rich_help_panel=panel)(run)
        return body

    return decorate


def _session(given: dict[str, Any]) -> Session:
    found = target(Given(given["url"], given["token"]), given["environment"], given["home"], given["store"])
    api = Client(found.url, found.token, note, found.help, found.renew, trust_in(found.ca))
    return Session(
        api,
        output=given["output"] or Output.TABLE,
        project_given=given["project"],
        wait=not given["no_wait"],
        timeout=given.get("timeout") or DEFAULT_TIMEOUT,
        key=given.get("key") or str(uuid.uuid4()),
    )


def trust_in(ca: Path | None) -> "ssl.SSLContext | None":
    """The TLS context with this authority only; None without one, which stands for the authorities of this host."""
    if ca is None:
        return None
    from runtime.tls.contexts import BadCertificate, pinned  # (loaded when it is needed, because it loads slowly)

    try:
        return pinned(ca)
    except BadCertificate as error:
        raise Usage(str(error)) from error


def _run(body: Callable[[], None], session: Session, *, repeatable: bool) -> None:
    try:
        body()
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except INVALID_ANSWER as error:
        reason = plain(str(error), keep="")
        raise CliError(
            f"{session.api.url} answered what this program does not understand ({type(error).__name__}: {reason}); "
            "is it a Nebula platform, of this version?"
        ) from error
    except CliError as error:
        if repeatable and error.exit is not Exit.USAGE:
            known = error.exit is Exit.FAILED
            error.add_note(f"{'idempotency key:' if known else 'safe to repeat with --key'} {session.key}")
        raise
