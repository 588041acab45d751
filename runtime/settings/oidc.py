"""The settings for tokens of an OIDC issuer."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from runtime.issuer import issuer
from runtime.oidc_roles import OidcRoles
from runtime.settings.common import Common


class Oidc(Common):
    #: issuer of OIDC tokens that are accepted, and the audience that they have to be for
    oidc_issuer: Annotated[str, AfterValidator(issuer)] | None = None
    oidc_audience: str | None = Field(default=None, min_length=1, max_length=255)
    #: client for `nebula login`, and the scopes that it asks for, separated by commas
    oidc_client_id: str | None = Field(default=None, min_length=1, max_length=255)
    oidc_scopes: str = Field(default="openid,offline_access", max_length=1000)
    #: claim that names the principal
    oidc_claim: str = Field(default="sub", min_length=1, max_length=255)
    #: claim that gives roles, as JSON: {"claim": "groups", "map": {"ops": "operator", "web": ["member@web"]}}
    oidc_roles: OidcRoles | None = None
    #: certificates of the issuer's CA, instead of those that this host trusts
    oidc_ca_file: Path | None = None
