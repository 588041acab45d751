"""The gateway's process."""

from gateway.access.oidc_login import BadIssuer
from gateway.access.sites import is_loopback
from gateway.access.tokens_file import BadTokens
from gateway.app import application, opened
from runtime import listener, logs
from runtime.settings import GatewaySettings
from runtime.tasks.patience import CannotRun
from runtime.tasks.stopping import on_signals
from runtime.tls.contexts import BadCertificate, ServerTls

log = logs.get(__name__)


async def run(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotRun if it cannot listen, or if the settings are not safe."""
    if settings.auth == "none" and not is_loopback(settings.http_host):
        raise CannotRun(
            f"NEBULA_HTTP_HOST is {settings.http_host}, which others can reach: "
            "this needs NEBULA_AUTH=tokens; or listen on 127.0.0.1"
        )
    if settings.auth == "none" and settings.tokens_file is not None:
        raise CannotRun("NEBULA_AUTH=none makes every caller an operator: unset it, or unset NEBULA_TOKENS_FILE")
    if settings.tls_cert is None and not settings.tls_proxy and not is_loopback(settings.http_host):
        raise CannotRun(
            f"NEBULA_HTTP_HOST is {settings.http_host}, which others can reach: set NEBULA_TLS_CERT, or "
            "NEBULA_TLS_PROXY=true if a proxy in front does TLS, or listen on 127.0.0.1"
        )
    try:
        tls = ServerTls(settings.tls_cert, settings.tls_key) if settings.tls_cert is not None else None
    except BadCertificate as error:
        raise CannotRun(f"NEBULA_TLS_CERT: {error}") from error
    if settings.auth == "none" and settings.oidc_issuer is not None:
        raise CannotRun("NEBULA_AUTH=none makes every caller an operator: unset it, or unset NEBULA_OIDC_ISSUER")
    try:
        sock = listener.bind(settings.http_host, settings.http_port)
    except OSError as error:
        where = f"{settings.http_host}:{settings.http_port}"
        raise CannotRun(f"cannot listen on {where}: {error} (NEBULA_HTTP_HOST, NEBULA_HTTP_PORT)") from error
    try:
        async with opened(settings) as gateway:
            on_signals(gateway.stop)
            host, port = sock.getsockname()[:2]
            scheme = "http"
            if tls is not None:
                scheme = "https"
                gateway.essential.start("certificate", tls.watch())
            log.info("gateway listens", url=f"{scheme}://{host}:{port}", auth=settings.auth)
            serving = listener.serve(
                application(gateway, settings.console_files),
                sock,
                gateway.stop,
                settings.http_limits,
                websockets=True,
                tls=tls.context if tls is not None else None,
            )
            await gateway.essential.during(serving)
    except BadTokens as error:
        raise CannotRun(f"NEBULA_TOKENS_FILE: {error}") from error
    except BadIssuer as error:
        raise CannotRun(str(error)) from error
    finally:
        sock.close()
    log.info("gateway stopped")
