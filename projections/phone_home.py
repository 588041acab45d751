"""What a guest says when it phones home: that it is ready, its name, and its SSH host keys."""

import re
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict

from domain.vm import HostKey
from domain.vm.commands import MOST_KEY
from projections import ssh

#: What `vendor-data` asks the guest to send.
KEYS = {
    "pub_key_rsa": frozenset({"ssh-rsa"}),
    "pub_key_ecdsa": frozenset(ssh.ECDSA),
    "pub_key_ed25519": frozenset({"ssh-ed25519"}),
}
ASKED = (*KEYS, "instance_id", "hostname", "fqdn")
#: The most bytes that are read of it.
MOST = 64 * 1024
#: What cloud-init writes for what a guest does not have.
MISSING = ("", "N/A", "None")

_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")


class Call(BaseModel):
    """A call that was understood."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    instance_id: str
    hostname: str | None
    host_keys: tuple[HostKey, ...]


def parse(body: bytes) -> Call:
    """The call that a form-encoded body makes. Raises ValueError, with a text for people."""
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=32, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError("not a form of UTF-8 text") from error
    fields = {name: values[0].strip() for name, values in form.items()}
    hostname = fields.get("hostname", "")
    keys = []
    for name, types in KEYS.items():
        line = fields.get(name, "")
        if line in MISSING:
            continue
        try:
            key = ssh.parse(line, types)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if len(key.data) > MOST_KEY:
            raise ValueError(f"{name}: longer than {MOST_KEY} characters")
        keys.append(HostKey(type=key.type, key=key.data, fingerprint=key.fingerprint))
    return Call(
        instance_id=fields.get("instance_id", ""),
        hostname=hostname if _HOSTNAME.fullmatch(hostname) and hostname not in MISSING else None,
        host_keys=tuple(keys),
    )
