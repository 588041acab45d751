"""How to log in: the ways that this gateway knows, for clients without a token."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway.access.oidc_login import OidcLogin
from gateway.reads import reads
from gateway.state import Gateway


class LoginView(BaseModel):
    """The ways to log in. `token_needed`: whether calls need a token. `oidc`: null if no issuer offers a login."""

    token_needed: bool
    oidc: OidcLogin | None


async def login(gateway: Gateway, _: Request) -> Response:
    """What a client needs to get a token. It is the same for every caller."""
    issuer = gateway.issuer
    found = LoginView(token_needed=gateway.access.needed, oidc=issuer.login() if issuer else None)
    return reads.answer(found.model_dump())
