"""Credentials in the URLs of images: sealed before anything is stored, opened to fetch, destroyed with the image.

Each registration has a key of its own in the vault, `image-<operation>`: an id may be registered again, and a destroyed
key is destroyed for good.
"""

from collections.abc import Iterable

from domain.base import Sealed
from domain.image import UNUSABLE, Image
from domain.image.values import REGISTER
from eventstore.vault.vault import Erased, Vault
from runtime.text.urls import secret, shown

PREFIX = "image-"


def key_of(operation: str) -> str:
    return f"{PREFIX}{operation}"


async def sealed(source: str, operation: str, vault: Vault) -> tuple[str, Sealed | None]:
    """The source as it may be stored, and all of it, sealed, where that is not the same."""
    if not secret(source):
        return source, None
    try:
        return shown(source), await vault.seal(key_of(operation), source)
    except Erased:  # a repeat of a request whose image was deleted: it is answered, and nothing is stored
        return shown(source), None


async def whole(image: Image, vault: Vault) -> str:
    """The source that the image is fetched from. Raises Erased."""
    return await vault.unseal(image.sealed_source) if image.sealed_source is not None else image.source


def over(images: Iterable[Image]) -> set[str]:
    """The keys that nobody needs any more: of images that are over, and of earlier registrations of an id."""
    keys = set()
    for image in images:
        registered = {id_ for id_, known in image.operations.items() if known.verb == REGISTER}
        if image.phase not in UNUSABLE:
            registered.discard(image.registered_by)
        keys |= {key_of(operation) for operation in registered}
    return keys
