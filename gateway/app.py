"""Makes a gateway: opens its connections, and closes them at the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eventstore.log.keyring import Keyring, NoKeyring
from eventstore.log.store import EventStore
from eventstore.parking.parking import Parking
from gateway.access import pepper
from gateway.access.addresses import networks
from gateway.access.attempts import Attempts
from gateway.access.auth import Authentication
from gateway.access.directory import Directory
from gateway.access.identity import Source
from gateway.access.log_tokens import LogTokens
from gateway.access.refusals import Refusals
from gateway.access.sessions import Sessions
from gateway.access.sites import served
from gateway.access.tokens_file import TokensFile
from gateway.access.uses import Uses
from gateway.console.routes import Console
from gateway.edge import Edge
from gateway.http.security_headers import SecurityHeaders
from gateway.monitoring.heartbeats import Heartbeats
from gateway.monitoring.metrics import Metrics
from gateway.monitoring.parked_index import Index
from gateway.monitoring.roles import Roles
from gateway.operators.status import publish_status
from gateway.routes import router
from gateway.state import Gateway, Past
from projections import database
from projections.past import queries
from projections.past.models import PAST
from projections.position import Position, listen
from runtime.bus import bus
from runtime.settings import GatewaySettings

if TYPE_CHECKING:
    from gateway.access.oidc import Issuer

#: Seconds for feeds to delete their consumers at the end.
ENDING = 3.0


def issuer_of(settings: GatewaySettings) -> "Issuer | None":
    """The issuer of OIDC tokens; None if the settings name none. Raises BadIssuer."""
    if settings.oidc_issuer is None:
        return None
    from gateway.access import oidc

    return oidc.opened(settings)


@asynccontextmanager
async def opened(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """A gateway with its connections. Waits for the bus, but not for Postgres or the log.

    Raises BadTokens, BadIssuer, BadKeyring.
    """
    tokens = TokensFile(settings.tokens_file)
    tokens.load()
    issuer = issuer_of(settings)
    keys = pepper.load(settings.pepper_path)
    event_keys = Keyring(settings.event_keys_path)
    with contextlib.suppress(NoKeyring):  # handlers create them; until then the log cannot be read
        event_keys.ready()
    nc = await bus.connect(settings, "gateway")
    pool = database.pool(settings.postgres_dsn, "gateway")
    past = Past(queries.pool(settings.postgres_dsn, "gateway_past"))
    by_tls = settings.tls_cert is not None or settings.tls_proxy
    heartbeats = Heartbeats(settings.clock_offset_seconds)
    store = EventStore(nc, event_keys)
    changed = asyncio.Event()
    directory = Directory(nc, store, settings.identity_seconds, changed)
    uses = Uses(nc, heartbeats.malformed)
    sources: list[Source] = [tokens, LogTokens(directory, keys, uses)]
    if issuer is not None:
        issuer.bindings = directory.bindings
        sources.append(issuer)
    access = Authentication(sources if settings.auth == "tokens" else None, changed)
    gateway = Gateway(
        nc=nc,
        store=store,
        pool=pool,
        position=Position(),
        past=past,
        access=access,
        directory=directory,
        pepper=keys,
        uses=uses,
        refusals=Refusals(nc, settings.refusals_per_minute, networks(settings.trusted_proxies), heartbeats.malformed),
        heartbeats=heartbeats,
        metrics=Metrics(),
        parked=Index(),
        roles=Roles(heartbeats.malformed),
        sites=served(settings.http_host, settings.http_names, settings.http_origins, only_local=not access.needed),
        sessions=Sessions(keys.of_sessions(), by_tls),
        attempts=Attempts(keys.of_sessions(), by_tls),
        headers=SecurityHeaders(by_tls),
        event_keys=event_keys,
        authority=settings.tls_ca.read_bytes() if settings.tls_ca is not None else None,
        checkpoint_keys=settings.home / "checkpoint.pub",
        issuer=issuer,
    )
    await gateway.heartbeats.listen(nc)
    await gateway.roles.listen(nc)
    await gateway.refusals.listen()
    await pool.open()
    await past.pool.open()
    gateway.essential.start("bus", nc.until_ended())
    gateway.essential.start("position", listen(settings.postgres_dsn, gateway.position))
    gateway.essential.start("past", listen(settings.postgres_dsn, past.position, PAST.schema))
    gateway.essential.start("parked", gateway.parked.run(Parking(nc)))
    gateway.essential.start("access", access.run())
    gateway.essential.start("uses", uses.run())
    if access.needed:
        gateway.essential.start("directory", directory.run())
        gateway.metrics.identity_behind(lambda: directory.behind)
    gateway.essential.start("refusals", gateway.refusals.run())
    gateway.essential.start("status", publish_status(gateway))
    try:
        async with gateway.essential:
            yield gateway
    finally:
        gateway.stop.set()
        await gateway.hub.close()
        if gateway.background:
            await asyncio.wait(gateway.background, timeout=ENDING)
        await pool.close()
        await past.pool.close()
        await nc.close()


def application(gateway: Gateway, console_files: Path | None = None) -> Edge:
    """The whole HTTP API and the console as an ASGI application. `console_files`: a folder of npm packages."""
    return Edge(gateway, router(gateway), Console(console_files))
