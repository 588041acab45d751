"""The settings of a gateway."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from runtime.settings import checks
from runtime.settings.listening import Listening
from runtime.settings.oidc import Oidc
from runtime.settings.stores import Database, Keyed


class GatewaySettings(Database, Listening, Oidc, Keyed):
    #: address and port of the HTTP API
    http_host: Annotated[str, AfterValidator(checks.address)] = "127.0.0.1"
    http_port: int = Field(default=8700, ge=0, le=65535)
    #: host names of the HTTP API besides this host's own, and origins (https://console.example) of web pages on other
    #: sites that may call it, each separated by commas
    http_names: Annotated[str, AfterValidator(checks.host_names)] = ""
    http_origins: Annotated[str, AfterValidator(checks.origins)] = ""
    #: tokens: every caller needs one; none: only loopback is served, and all callers are the operator `local`
    auth: Literal["tokens", "none"] = "tokens"
    #: file of break-glass tokens, which work without the log: one `name sha256-of-token [role]` per line
    tokens_file: Path | None = None
    #: files of the certificate with which the API is served, and of its key, if that is in another file (PEM)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: file with the authority (PEM) of that certificate, for hosts that join
    tls_ca: Path | None = None
    #: a proxy in front of the API does TLS, so that it may listen without it on an address that others can reach
    tls_proxy: bool = False
    #: file with the key (32 bytes, base64) of the log's digests of tokens, which all gateways share; made at first use
    pepper_file: Path | None = None
    #: seconds for which tokens of the log are accepted after this gateway last read the log to its end
    identity_seconds: float = Field(default=5.0, ge=2, le=300)
    #: folder with the npm packages that the console uses; without it, where `make setup` installs them
    console_files: Path | None = None
    #: addresses and networks of proxies, separated by commas, whose `X-Forwarded-For` names the client
    trusted_proxies: Annotated[str, AfterValidator(checks.networks)] = ""
    #: refused calls per minute of one address (401) or one credential (403); further ones are 429
    refusals_per_minute: int = Field(default=60, ge=1, le=1_000_000)

    @property
    def pepper_path(self) -> Path:
        return self.pepper_file or self.home / "pepper.key"
