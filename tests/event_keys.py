"""Event keys for tests that write to the log without handlers."""

import base64
from pathlib import Path

from eventstore.log import keyring
from eventstore.log.macs import Key, Keys
from runtime.files import files

#: A key, and the keys of a log in which all events need its MAC.
KEY = Key(b"0123456789abcdef0123456789abcdef")
KEYS = Keys({KEY.id: KEY}, KEY.id, 0)
#: Another key, which is in no file.
STRANGER = Key(b"fedcba9876543210fedcba9876543210")
STRANGERS = Keys({STRANGER.id: STRANGER}, STRANGER.id, 0)


def put_keys(home: Path, *, since: int = 2**62) -> Path:
    """Write the file of event keys. By default no event in the log needs a MAC."""
    stored = keyring.StoredKey(id=KEY.id, key=base64.b64encode(KEY.secret).decode())
    path = home / "event.keys"
    files.put(path, keyring.Stored(since=since, signer=KEY.id, keys=(stored,)).model_dump_json(exclude_none=True))
    return path
