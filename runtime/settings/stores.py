"""The settings of processes that read the log, the vault or the read models."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from runtime.settings import checks
from runtime.settings.common import Common


class Database(Common):
    #: DSN of the Postgres database with the read models
    postgres_dsn: Annotated[str, AfterValidator(checks.dsn)] = "postgresql://nebula@127.0.0.1:5432/nebula"


class Vaulted(Common):
    #: file with the key (32 bytes, base64) that wraps all keys of VMs; created at first use
    master_key_file: Path | None = None

    @property
    def master_key_path(self) -> Path:
        return self.master_key_file or self.home / "master.key"


class Keyed(Common):
    #: file with the keys of the events' MACs; handlers create it at their first start, all readers of the log need it
    event_keys_file: Path | None = None

    @property
    def event_keys_path(self) -> Path:
        return self.event_keys_file or self.home / "event.keys"
