"""The key with which this node checks that handlers wrote a document for it."""

from runtime import logs
from runtime.node_keys import node_keys, read_key
from runtime.settings import NodeSettings, SimulationSettings
from runtime.tasks.patience import CannotRun

log = logs.get(__name__)


def node_key(settings: NodeSettings) -> bytes | None:
    """The key in the file; None if this node was never given one.

    Without a key anybody who can publish on this node's subjects can tell it what to run. It is accepted because a host
    that has no file was never given one: nobody on the bus can remove it. Raises CannotRun if the file that
    NEBULA_NODE_KEY_FILE names is missing, or a file is damaged.
    """
    if isinstance(settings, SimulationSettings) and settings.node_keys_path.exists():
        return node_keys(settings.node_keys_path).of(settings.node)
    path = settings.node_key_path
    try:
        return read_key(path)
    except FileNotFoundError:
        if settings.node_key_file is not None:
            raise CannotRun(f"there is no file {path} with the key of this node: restore it, or join again") from None
        log.warning("this node has no key: wanted documents are accepted without a MAC", file=str(path))
        return None
    except OSError as error:
        raise CannotRun(f"{path} cannot be read: {error.strerror}") from error
