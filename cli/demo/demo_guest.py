"""The guest of `nebula demo`: its user-data, and how SSH proves that the user-data ran."""

import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cli.client.client import Document
from cli.client.errors import CliError

#: Seconds for the guest to answer after a restart; without KVM a boot takes a minute or two.
BOOT_SECONDS = 600.0
FILE = "/etc/nebula-demo"


@dataclass(frozen=True)
class Guest:
    """One guest and the key to it. `folder` holds the key and known_hosts, and nothing else."""

    folder: Path
    marker: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def _key(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def _known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def user_data(self) -> str:
        """User-data: a user with the demo's key, a file with the marker, and a line on the console at the end."""
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "nebula-demo", "-f", str(self._key)]
        subprocess.run(argv, check=True)
        public = self._key.with_suffix(".pub").read_text().strip()
        return f"""#cloud-config
users:
  - default
  - name: demo
    shell: /bin/bash
    ssh_authorized_keys:
      - {public}
write_files:
  - path: {FILE}
    content: "{self.marker}\\n"
runcmd:
  - [sh, -c, "echo {self.proof_line} > /dev/ttyS0"]
"""

    @property
    def proof_line(self) -> str:
        """The line that the guest writes to its serial console at the end of its user-data."""
        return f"nebula-demo: user-data {self.marker} has run"

    def trust(self, vm: Document) -> None:
        """Trust only the host keys that the guest has reported."""
        lines = [f"{address} {key['type']} {key['key']}" for address in vm["addresses"] for key in vm["host_keys"]]
        self._known_hosts.write_text("\n".join(lines) + "\n")

    def run(self, address: str, command: str) -> str:
        """The output of a command in the guest. Raises CliError."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "GlobalKnownHostsFile": "/dev/null",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._known_hosts),
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["ssh", "-F", "/dev/null", "-i", str(self._key), *flags, f"demo@{address}", command]
        try:
            ran = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            raise CliError(f"the guest at {address} accepts SSH but does not answer") from None
        if ran.returncode != 0:
            raise CliError(f"ssh to {address} failed: {ran.stderr.strip() or f'exit status {ran.returncode}'}")
        return ran.stdout.strip()

    def until(self, address: str, command: str, good: Callable[[str], bool]) -> str:
        """Repeat the command until its output is good, and return it. Raises CliError if it never is."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                out = self.run(address, command)
                if good(out):
                    return out
                problem = CliError(f"the guest still says {out!r}")
            except CliError as error:
                problem = error
            if time.monotonic() > deadline:
                raise problem
            time.sleep(1)
