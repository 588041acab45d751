"""What of the image cache goes, and what never does."""

import asyncio
import os
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from domain.contract import CachedImages, ImageCache, UnwantedImages
from node_daemon.storage import image_keeper
from node_daemon.storage.backing import base_of, bases
from node_daemon.storage.cache import GRACE, STALE, Entry, choose
from node_daemon.storage.disks import Disks
from runtime import subjects
from runtime.bus import replies
from runtime.local.servers import NatsServer
from tests.image_server import Images, serving
from tests.node_daemon.documents import MIB, qcow2_image, raw_image, source_of
from tests.waiting import eventually

NOW = 1_000_000_000.0


def entry(name: str, age: float, size: int = 10, *, whole: bool = True) -> Entry:
    return Entry(Path(name), f"{name}.raw", name, size, NOW - age, whole)


def chosen(*entries: Entry, **said: Any) -> list[str]:
    given = {"kept": (), "unwanted": (), "excess": 0, "now": NOW, **said}
    return [found.digest for found in choose(entries, **given)]


OLD, OLDER, OLDEST = entry("old", 1000), entry("older", 2000), entry("oldest", 3000)


def test_the_least_recently_used_go_first_and_no_more_than_needed() -> None:
    assert chosen(OLD, OLDEST, OLDER) == []
    assert chosen(OLD, OLDEST, OLDER, excess=1) == ["oldest"]
    assert chosen(OLD, OLDEST, OLDER, excess=11) == ["oldest", "older"]
    assert chosen(OLD, OLDEST, OLDER, excess=1000) == ["oldest", "older", "old"]


def test_what_is_kept_is_kept_at_any_price() -> None:
    assert chosen(OLD, OLDEST, excess=1000, kept={"oldest.raw"}) == ["old"]
    assert chosen(OLD, OLDEST, unwanted={"old", "oldest"}, kept={"oldest.raw"}) == ["old"]


def test_what_was_just_asked_for_stays_unless_nobody_wants_it() -> None:
    assert chosen(entry("new", GRACE - 1), excess=1000) == []
    assert chosen(entry("new", 0), unwanted={"new"}) == ["new"]


def test_what_nobody_wants_is_room_made() -> None:
    assert chosen(OLD, OLDEST, unwanted={"old"}, excess=10) == ["old"]


def test_half_an_image_waits_for_a_day() -> None:
    assert chosen(entry("half", STALE - 1, whole=False)) == []
    assert chosen(entry("half", STALE + 1, whole=False), entry("whole", STALE + 1)) == ["half"]


# ── on real files ───────────────────────────────────────────────────────────────────────────────────────────────────


class Place:
    """A cache of three images of 1 MiB, and disks beside it."""

    def __init__(self, home: Path, budget: int = 0) -> None:
        self.home = home
        self.folder = home / "data" / "images"
        self.disks = Disks(home / "data")
        self.sources = [raw_image(home / f"{n}.raw", MIB, fill=bytes([65 + n])) for n in range(3)]
        self.images = self.restarted(budget)

    def restarted(self, budget: int = 0) -> Images:
        return Images(self.folder, [self.home], budget=budget, bases=self.disks.bases)

    async def fill(self) -> None:
        """All in the cache, and used so long ago: 3000, 2000, 1000 seconds."""
        for n, source in enumerate(self.sources):
            base = await self.images.ensure(source)
            os.utime(base.path, (time.time() - 3000 + 1000 * n,) * 2)

    def file(self, n: int) -> Path:
        return self.folder / f"{self.sources[n].sha256}.raw"

    def there(self) -> list[int]:
        return [n for n in range(3) if self.file(n).exists()]


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    await made.fill()
    return made


async def test_the_budget_makes_room(place: Place) -> None:
    place.images = place.restarted(budget=2 * MIB)
    await place.images.tidy()
    assert place.there() == [1, 2]
    extra = raw_image(place.home / "extra.raw", MIB, fill=b"x")
    await place.images.ensure(extra)
    assert place.there() == [2], "room is made before it comes"
    kept = place.images.use()
    assert kept == ImageCache(images=2, bytes=2 * MIB, budget_bytes=2 * MIB, free_bytes=kept.free_bytes)
    assert kept.free_bytes


async def test_what_a_disk_is_based_on_stays_over_restarts(place: Place) -> None:
    await place.disks.ensure("vm", await place.images.ensure(place.sources[0]), 1)
    os.utime(place.file(0), (1, 1))
    place.images = place.restarted(budget=1)
    await place.images.tidy({place.sources[0].sha256})
    assert place.there() == [0]
    place.disks.remove("vm")
    await place.images.tidy()
    assert place.there() == []


async def test_use_counts_from_the_last_time_it_was_asked_for(place: Place) -> None:
    place.images = place.restarted(budget=2 * MIB)
    for _ in range(2):  # from the disk, then from memory
        await place.images.ensure(place.sources[0])
    await place.images.tidy()
    assert place.there() == [0, 2]


async def test_what_the_catalogue_has_no_more_goes_at_once(place: Place) -> None:
    await place.images.tidy({place.sources[1].sha256})
    assert place.there() == [0, 2]
    assert (await place.images.ensure(place.sources[1])).path.exists(), "it can come again"


async def test_what_is_not_ours_is_not_touched(place: Place) -> None:
    digest = place.sources[0].sha256
    others = ["notes.txt", f"{digest}.iso", f"{digest}.raw.bak", "x.part", f"{digest[:-1]}.raw"]
    for name in others:
        (place.folder / name).write_bytes(b"x")
        os.utime(place.folder / name, (1, 1))
    (place.folder / f"{'e' * 64}.raw").symlink_to("/etc/hostname")
    (place.folder / f"{'d' * 64}.raw").mkdir()
    place.images = place.restarted(budget=1)
    await place.images.tidy({"e" * 64, "d" * 64})
    assert place.there() == []
    assert sorted(path.name for path in place.folder.iterdir()) == sorted(
        [*others, f"{'e' * 64}.raw", f"{'d' * 64}.raw"]
    )


async def test_one_that_arrives_is_left_alone(place: Place) -> None:
    body = os.urandom(2 * MIB)
    (place.home / "new.raw").write_bytes(body)
    async with serving(body) as server:
        server.stall = MIB
        source = source_of(place.home / "new.raw", "raw", 2 * MIB, at=server.url)
        arriving = asyncio.create_task(place.images.ensure(source))
        part = place.folder / f"{source.sha256}.raw.part"
        await eventually(lambda: part.exists() and part.stat().st_size == MIB, "half of it")
        os.utime(part, (1, 1))
        await place.images.tidy({source.sha256})
        assert part.exists()
        arriving.cancel()
        await asyncio.gather(arriving, return_exceptions=True)
        await place.images.tidy()
        assert not part.exists()
        assert not part.with_name(f"{part.name}.json").exists()


Usage = namedtuple("Usage", "total used free")


async def test_a_disk_without_room_makes_some(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_daemon.storage.cache.shutil.disk_usage", lambda _: Usage(0, 0, 0))
    await place.images._cache.tidy(lambda _: False, room=MIB + 1)
    assert place.there() == [2]


async def test_disks_that_cannot_be_read_keep_everything(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot() -> set[Path]:
        raise PermissionError("no")

    place.images = Images(place.folder, [place.home], budget=1, bases=cannot)
    await place.images.tidy({source.sha256 for source in place.sources})
    assert place.there() == [0, 1, 2]


async def test_a_start_removes_what_was_about_to_go(place: Place) -> None:
    half_gone = place.folder / f"{'a' * 64}.qcow2.gone"
    half_gone.write_bytes(b"x")
    place.restarted()
    assert not half_gone.exists()


async def test_chains_of_disks_lead_to_their_bases(tmp_path: Path) -> None:
    raw_image(tmp_path / "base.raw")
    (tmp_path / "disks" / "vm").mkdir(parents=True)
    disk, snapshot = tmp_path / "disks" / "vm" / "root.qcow2", tmp_path / "disks" / "vm" / "snapshot.qcow2"
    qcow2_image(disk, MIB, "-b", str(tmp_path / "base.raw"), "-F", "raw")
    qcow2_image(snapshot, MIB, "-b", "root.qcow2", "-F", "qcow2")
    (tmp_path / "disks" / "seed.iso").write_bytes(b"CD001")
    (tmp_path / "disks" / "empty").write_bytes(b"")
    (tmp_path / "disks" / "link").symlink_to(disk)
    assert bases(tmp_path / "disks") == {tmp_path / "base.raw", disk}
    assert base_of(tmp_path / "base.raw") is None


async def test_the_catalogue_is_asked(place: Place, nats_server: NatsServer) -> None:
    import nats

    connection = await nats.connect(nats_server.url)
    node = f"n{os.getpid()}"
    assert await image_keeper.unwanted(connection, node, {"a" * 64}) == frozenset(), "nobody there: nothing is unwanted"

    async def answer(msg: Any) -> None:
        asked = CachedImages.model_validate_json(msg.data)
        assert asked.node == node
        gone = (place.sources[2].sha256, "0" * 64)
        await msg.respond(replies.accepted(UnwantedImages(digests=gone)))

    await connection.subscribe(subjects.cached_images(node), cb=answer)
    keeping = asyncio.create_task(image_keeper.keep_tidy(place.images, connection, node, every=0.05))
    await eventually(lambda: place.there() == [0, 1], "the unwanted one is gone")
    keeping.cancel()
    await connection.close()
