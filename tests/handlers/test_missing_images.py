"""What is available and not kept, as images of before there was a store: brought from the source while it is there."""

import dataclasses
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from domain.contract import Fetch
from domain.image import Image, ImagePhase
from handlers.images import reading
from handlers.images.reading import Reader
from handlers.images.store import ImageStore
from handlers.managers.driver import Driver
from handlers.managers.missing_images import MissingImages
from handlers.world.watch import Changes
from runtime.tasks.backoff import Backoff
from tests.domain.test_image import VERIFYING
from tests.handlers.platform import raw_disk
from tests.hostile_images import MIB
from tests.image_server import LOOPBACK, ImageServer, serving

DISK = raw_disk(MIB)
DIGEST = hashlib.sha256(DISK).hexdigest()


class Cloud:
    """A keeper with what it looks at."""

    def __init__(self, folder: Path, server: ImageServer, budget: int = 0) -> None:
        self.folder = folder
        self.server = server
        self.found: list[Image] = []
        self.store = ImageStore(folder / "store", budget)
        self.keeper = self.fresh()

    def fresh(self) -> MissingImages:
        reader = Reader(self.folder / "imports", [self.folder], LOOPBACK, self.store)
        world: Any = self
        return MissingImages(world, reader, self, self.store)  # type: ignore[arg-type]

    def images(self) -> list[Image]:
        return self.found

    def image(self, id_: str) -> Image | None:
        return next((each for each in self.found if each.id == id_), None)

    def add(self, **more: Any) -> None:
        said: dict[str, Any] = {
            "source": self.server.url,
            "sha256": DIGEST,
            "sha512": None,
            "phase": ImagePhase.AVAILABLE,
        }
        said |= {"id": f"i{len(self.found)}", "registered_by": f"op-{len(self.found)}", "size_bytes": len(DISK)}
        self.found.append(dataclasses.replace(VERIFYING.after, **{**said, **more}))

    async def look(self, keeper: MissingImages | None = None) -> list[str]:
        """What is kept after one look."""
        driver: Driver = (keeper or self.keeper).driver()
        await driver.round(Changes(frozenset(), everything=True))
        while tasks := [item.task for item in driver._items.values() if item.task is not None]:
            await tasks[0]
        assert not driver.status().items, "nothing fails"
        return sorted(path.name for path in (self.folder / "store").iterdir())


@pytest.fixture
async def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    monkeypatch.setattr(reading, "RETRY", Backoff(first=0.0, last=0.0))
    async with serving(DISK) as server:
        yield Cloud(tmp_path, server)


async def test_it_is_brought_once(cloud: Cloud) -> None:
    cloud.add()
    cloud.add()  # another name of the same
    (cloud.folder / "own.raw").write_bytes(other := DISK + os.urandom(512))
    cloud.add(source=str(cloud.folder / "own.raw"), sha256=hashlib.sha256(other).hexdigest(), size_bytes=len(other))
    kept = sorted([DIGEST, hashlib.sha256(other).hexdigest()])
    assert await cloud.look() == await cloud.look() == kept
    assert (cloud.folder / "store" / DIGEST).read_bytes() == DISK
    assert len(cloud.server.requests) == 1
    assert list((cloud.folder / "imports").glob("*.part*")) == []


async def test_a_source_that_is_good_no_more_is_asked_once(cloud: Cloud) -> None:
    """As one that has other bytes by now; until handlers are started again."""
    cloud.add()
    cloud.server.status = "403 Forbidden"
    assert await cloud.look() == await cloud.look() == []
    cloud.server.status = "200 OK"
    assert await cloud.look() == []
    assert len(cloud.server.requests) == 1
    cloud.server.body = DISK[:-512] + os.urandom(512)
    keeper = cloud.fresh()
    assert await cloud.look(keeper) == await cloud.look(keeper) == []
    assert len(cloud.server.requests) == 2
    cloud.server.body = DISK
    assert await cloud.look(cloud.fresh()) == [DIGEST]


async def test_a_source_that_is_away_is_asked_again_later(cloud: Cloud) -> None:
    cloud.add()
    cloud.server.status = "503 Service Unavailable"
    assert await cloud.look() == []
    cloud.server.status = "200 OK"
    assert await cloud.look() == [DIGEST]


async def test_what_is_not_to_be_kept_is_not_asked_for(cloud: Cloud) -> None:
    for more in ({"fetch": Fetch.SOURCE}, {"phase": ImagePhase.VERIFYING}, {"phase": ImagePhase.DELETED}):
        cloud.add(**more)
    assert await cloud.look() == []
    assert cloud.server.requests == []


async def test_nothing_else_goes_for_it(tmp_path: Path, cloud: Cloud) -> None:
    (tmp_path / "small").mkdir()
    small = Cloud(tmp_path / "small", cloud.server, budget=2 * len(DISK) - 1)
    kept = tmp_path / "small" / "store" / ("0" * 64)
    kept.write_bytes(os.urandom(len(DISK)))
    small.add()
    small.add(sha256=kept.name)
    assert await small.look() == [kept.name]
    assert cloud.server.requests == []
    small.found.pop()
    assert await small.look() == [DIGEST]
