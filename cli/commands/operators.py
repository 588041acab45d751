"""Common code of the commands for operators: settings, and a connection to the bus."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from cli.client.errors import CliError, Unreachable, Usage
from cli.client.session import Output

if TYPE_CHECKING:
    from nats.aio.client import Client

    from runtime.settings import Common

T = TypeVar("T")
S = TypeVar("S", bound="Common")


def on_bus(settings: "Common", work: Callable[["Client"], Awaitable[T]]) -> T:
    """Do some work with a connection. Raises Unreachable, CliError."""
    import ssl

    from nats.errors import Error as NatsError
    from nats.js.errors import NotFoundError

    from eventstore.integrity.archive import BadArchive
    from eventstore.integrity.notary import Disagrees
    from eventstore.log.jetstream import Unavailable
    from runtime import logs
    from runtime.bus.bus import place
    from runtime.bus.login import advice, login, refusal, refuses, tls_of
    from runtime.bus.quick_client import QuickClient
    from runtime.files.unusable import sentence
    from runtime.tasks.patience import CannotRun, one_line

    logs.configure("operator", "warning", settings.log_format)  # results go to standard output, and nothing else

    async def quiet(_error: Exception) -> None:
        """Ignores errors of the connection: the call that needs it raises them."""

    async def connected() -> T:
        nc, how, tls = QuickClient(), login(settings), tls_of(settings)
        nc.api, nc.imports, nc.accounts, nc.only_tls = how.api, how.imports, how.accounts, tls is not None
        await nc.connect(
            settings.nats_urls,
            name="nebula-operator",
            **how.options,
            tls=tls,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # seconds; a fraction works
            connect_timeout=5,
            error_cb=quiet,
        )
        try:
            return await work(nc)
        finally:
            await nc.close()

    try:
        return asyncio.run(connected())
    except NotFoundError as error:
        raise CliError(f"{place(settings)} has no platform: {error}") from error
    except (NatsError, Unavailable, TimeoutError, ConnectionError, socket.gaierror) as error:
        if refuses(error):
            raise CliError(str(refusal(place(settings), error, advice(settings)))) from error
        raise Unreachable(f"the log of {place(settings)} does not answer: {one_line(error)}") from error
    except (BadArchive, Disagrees, CannotRun) as error:
        raise CliError(str(error)) from error
    except ssl.SSLError as error:
        raise CliError(f"{place(settings)} is not trusted: {one_line(error)}; check NEBULA_NATS_CA") from error
    except OSError as error:
        raise Usage(sentence(error)) from error


def local(context: typer.Context, kind: "type[S]") -> S:
    """The settings, with the bus of a platform that `nebula up` runs on this machine."""
    from cli.local.home import on_bus as bus_of
    from runtime.bus.accounts.table import MAINTENANCE
    from runtime.settings import read

    settings = read(kind)
    home = (context.obj or {}).get("home")
    if home is not None:
        settings = settings.model_copy(update={"home": home})
    if "nats_url" in settings.model_fields_set:
        return settings
    found = bus_of(settings.home, MAINTENANCE)
    return settings.model_copy(update={name: to for name, to in found.items() if name not in settings.model_fields_set})


def wants_json(context: typer.Context, format_: Output | None) -> bool:
    return (format_ or (context.obj or {}).get("output")) is Output.JSON
