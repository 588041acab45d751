"""The settings of guest-data, the cloud-init data source."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from runtime.settings import checks
from runtime.settings.listening import Listening


class GuestDataSettings(Listening):
    #: address and port of the cloud-init data source, which only guests should be able to reach
    seed_host: Annotated[str, AfterValidator(checks.address)] = "192.168.122.1"
    seed_port: int = Field(default=8775, ge=0, le=65535)
    #: a guest needs one connection at a time; one guest must not use up those of the others
    http_connections_per_address: int = Field(default=32, ge=1, le=100_000)

    @property
    def copies_dir(self) -> Path:
        """The folder of the sealed copies of seeds."""
        return self.home / "guest-data"
