"""What the rest of the gateway knows of an OIDC issuer. `oidc.py` is loaded only if the settings name one: with its
libraries it takes 5 MiB.
"""

from pydantic import BaseModel


class BadIssuer(Exception):
    """The settings of the issuer cannot be used. The text names the setting."""


class OidcLogin(BaseModel):
    """How to get a token of the issuer, for this client: by the device flow (RFC 8628), or by `/v1/login/begin`."""

    issuer: str
    client_id: str
    audience: str
    scopes: tuple[str, ...]
