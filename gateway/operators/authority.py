"""The platform's authority: hosts that join compare its fingerprint, and trust nobody else from then on."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.problems import Problem
from gateway.state import Gateway


async def authority(gateway: Gateway, _: Request) -> Response:
    """The certificate of the authority, in PEM. Raises Problem (404)."""
    if gateway.authority is None:
        raise Problem(404, "no_authority", "this platform has no authority of its own (NEBULA_TLS_CA)")
    return Response(gateway.authority, media_type="text/plain")
