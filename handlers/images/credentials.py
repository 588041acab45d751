"""Credentials in the URLs of images. They are sealed before anything is stored, decrypted to fetch the image, and
erased with it.

Each registration has a key of its own in the vault, `image-<operation>`, because an id may be registered again, and a
destroyed key cannot be used again.
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


async def seal_source(source: str, operation: str, vault: Vault) -> tuple[str, Sealed | None]:
    """The source without credentials, and the whole source, sealed, if it has any."""
    if not secret(source):
        return source, None
    try:
        return shown(source), await vault.seal(key_of(operation), source)
    except Erased:  # a repeat of a request whose image was deleted: it is only answered, and nothing is stored
        return shown(source), None


async def full_source(image: Image, vault: Vault) -> str:
    """The source of an image, with its credentials. Raises Erased."""
    return await vault.unseal(image.sealed_source) if image.sealed_source is not None else image.source


def unneeded_keys(images: Iterable[Image]) -> set[str]:
    """The keys that are no longer needed: of deleted and rejected images, and of earlier registrations of an id."""
    keys = set()
    for image in images:
        registered = {id_ for id_, known in image.operations.items() if known.verb == REGISTER}
        if image.phase not in UNUSABLE:
            registered.discard(image.registered_by)
        keys |= {key_of(operation) for operation in registered}
    return keys
