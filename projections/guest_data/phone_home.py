"""Phone home: the script that a guest runs, and the parser of what it sends (its name, its SSH host keys)."""

import re
from urllib.parse import parse_qs

from domain.contract.guest_data import MOST_INSTANCE, GuestCall
from domain.guest import MOST_KEY, HostKey
from projections import ssh

#: The host keys that a guest may send: the form's field, and the types of key in it.
KEYS = {
    "pub_key_rsa": frozenset({"ssh-rsa"}),
    "pub_key_ecdsa": frozenset(ssh.ECDSA),
    "pub_key_ed25519": frozenset({"ssh-ed25519"}),
}
#: Maximum number of bytes of a body.
MOST = 64 * 1024
#: Values that mean: the guest does not have this.
MISSING = ("", "N/A", "None")

_BOOT = re.compile(r"[0-9A-Za-z-]{1,64}")
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}")


def parse(body: bytes) -> GuestCall:
    """Parse a form-encoded body. Raises ValueError with a text for people."""
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=32, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise ValueError("the body is not a form in UTF-8") from error
    fields = {name: values[0].strip() for name, values in form.items()}
    instance = fields.get("instance_id", "")
    if len(instance) > MOST_INSTANCE:
        raise ValueError("instance_id: not the id of a machine")
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
    return GuestCall(
        instance_id=instance,
        boot=boot_in(fields.get("boot_id", "")),
        hostname=hostname if _HOSTNAME.fullmatch(hostname) and hostname not in MISSING else None,
        host_keys=tuple(keys),
    )


def boot_in(text: str) -> str | None:
    """The guest's own id of its boot; None if it sends none. Raises ValueError for an invalid id."""
    if text in MISSING:
        return None
    if not _BOOT.fullmatch(text):
        raise ValueError("boot_id: not the id of a boot")
    return text


#: The script that makes a guest call: a boothook. cloud-init runs it at every boot, and user-data cannot override it
#: (but user-data can turn off vendor-data). It waits in the background until cloud-init is done, then posts, with the
#: Python that cloud-init itself uses. Python does the waiting: a shell would start a process for each look.
_HOOK = """#cloud-boothook
#!/bin/sh
# Tells the platform, at each boot, that cloud-init is done.
if [ "$1" != wait ]; then
    "$0" wait </dev/null >/dev/null 2>&1 &
    exit 0
fi
python=$(sed -n '1s/^#! *//p' "$(command -v cloud-init)")
case "$python" in *python*) ;; *) python=python3 ;; esac
exec $python - <<'END'
import os, time

while not any(map(os.path.exists, ("/run/cloud-init/result.json", "/var/run/cloud-init/result.json"))):
    time.sleep(0.5)

import socket, urllib.parse, urllib.request

def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""

said = {
    "instance_id": read("/var/lib/cloud/data/instance-id"),
    "boot_id": read("/proc/sys/kernel/random/boot_id"),
    "hostname": socket.gethostname(),
}
for kind in ("rsa", "ecdsa", "ed25519"):
    said["pub_key_" + kind] = read("/etc/ssh/ssh_host_" + kind + "_key.pub")
body = urllib.parse.urlencode(said).encode()
straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(60):
    try:
        straight.open("@URL@", body, 30).read()
        break
    except OSError:
        time.sleep(10)
END
"""


def hook(url: str) -> str:
    """The vendor-data that makes the guest post to `url`. No URL of ours contains characters that need quotes."""
    return _HOOK.replace("@URL@", url)
