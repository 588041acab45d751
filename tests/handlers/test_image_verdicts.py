"""Every image that is registered gets a verdict, and one that is bad in a new way delays no other."""

import asyncio
import dataclasses
import errno
import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from domain.image import Image, ImageCommands, RejectImage
from handlers.images import reading
from handlers.images.reading import BadImage, Reader
from handlers.managers import images
from handlers.managers.driver import Driver
from handlers.managers.images import AT_A_TIME, OF_A_PROJECT, Verifier, turns
from runtime.images.image_hosts import ImageHosts
from runtime.tasks.backoff import Backoff
from runtime.tasks.gauge import Gauge
from runtime.text.urls import is_url
from tests.domain.story import uid
from tests.domain.test_image import VERIFYING
from tests.handlers.platform import raw_disk
from tests.image_server import LOOPBACK, serving

DISK = raw_disk(1024**2)


def registered(source: str, number: int = 10, **more: Any) -> Image:
    said = {"source": source, "registered_by": uid(number), "sha256": None, "sha512": None, **more}
    return dataclasses.replace(VERIFYING.after, **said)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr(reading, "RETRY", Backoff(first=0.0, last=0.0))
    return Reader(tmp_path / "imports", [tmp_path], ImageHosts())


class Quiet(Verifier):
    """Judges without a log."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._vault: Any = None
        self._failures = Counter[str]()

    def _progress(self, found: Image, driver: Driver, done: int, total: int | None) -> None: ...

    async def in_the_end(self, found: Image) -> ImageCommands:
        """The verdict, as often as it takes."""
        while True:
            try:
                return await self._verdict(found, DRIVER)
            except OSError:
                continue


DRIVER = Driver("images", lambda changes, driver: asyncio.sleep(0), period=1)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{}/\0", "image_not_allowed"),
        ("{}/\ud800", "image_not_allowed"),
        ("{}/../{}", "image_not_allowed"),
        ("{}/" + "a" * 5000, "image_missing"),
        ("{}/" + "a/" * 2500, "image_missing"),
        ("{}/loop", "image_not_allowed"),
        ("{}/loop/i", "image_not_allowed"),
        ("{}/fifo", "image_not_allowed"),
        ("{}/imports", "image_not_allowed"),
        ("/dev/null", "image_not_allowed"),
        ("http://xn--/", "image_missing"),
        ("http://h:99999/", "image_unreachable"),
        ("http://[fe80::1/", "image_missing"),
        ("http://::1/", "image_missing"),
        ("http://\0/", "image_missing"),
        ("http://127.0.0.1/", "image_not_allowed"),
        ("http://0/", "image_not_allowed"),
        ("http://[::ffff:169.254.169.254]/", "image_not_allowed"),
    ],
)
async def test_whatever_people_can_write_gets_a_verdict(tmp_path: Path, reader: Reader, source: str, code: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    verdict = await Quiet(reader).in_the_end(registered(source.replace("{}", str(tmp_path))))
    assert isinstance(verdict, RejectImage)
    assert (verdict.code, verdict.field) == (code, "source")
    assert not is_url(verdict.detail), "programs would take such a text for a link"


@pytest.mark.parametrize("error", [ValueError("new"), RuntimeError("new"), OSError(errno.EIO, "Input/output error")])
async def test_an_unknown_error_is_the_verdict_on_that_image(error: Exception) -> None:
    tries = 0

    class Broken:
        async def facts(self, found: Image, tell: Gauge) -> None:
            nonlocal tries
            tries += 1
            raise error

    verdict = await Quiet(Broken()).in_the_end(registered("/i"))
    assert isinstance(verdict, RejectImage)
    assert verdict.code == "image_unreadable"
    assert tries == (images.TRIES if isinstance(error, OSError) else 1)


def test_turns_are_bounded_in_all_and_for_each_project() -> None:
    waiting = {str(n): registered("/i", n, project="greedy") for n in range(100)}
    assert len(turns(waiting, [])) == OF_A_PROJECT
    assert turns(waiting, list(waiting)[:OF_A_PROJECT]) == []
    others = {f"o{n}": registered("/i", n, project=f"p{n}") for n in range(100)}
    assert len(turns({**waiting, **others}, [])) == AT_A_TIME
    assert "o1" in turns({**waiting, "o1": others["o1"]}, [])


async def test_a_project_may_not_have_all_of_the_room_in_flight(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "room", lambda _: 1000)
    first, second = (registered("http://h/", n, project="p") for n in (1, 2))
    reader._check(first, reader._part(first), 400)
    with pytest.raises(BadImage, match="other images of project p, with 400 bytes") as caught:
        reader._check(second, reader._part(second), 400)
    assert (caught.value.code, caught.value.field) == ("too_much_in_flight", "project")
    reader._check(dataclasses.replace(second, project="q"), reader._part(second), 400)


async def test_what_others_cannot_read_is_judged_by_a_copy(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "i").write_bytes(DISK)
    for mode in (0o600, 0o644):
        (tmp_path / "i").chmod(mode)
        facts = await reader.facts(registered(str(tmp_path / "i")), lambda *_: None)
        assert facts.sha256 == hashlib.sha256(DISK).hexdigest()
        assert (tmp_path / "i").stat().st_mode & 0o777 == mode


async def test_secrets_of_a_url_are_in_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RETRY", Backoff(first=0.0, last=0.0))
    reader = Reader(tmp_path / "imports", [], LOOPBACK)
    async with serving(b"no disk".ljust(4096)) as server:
        url = server.url.replace("//", "//me:hunter2@") + "?sig=hunter3"
        for change in ({}, {"status": "404 hunter2"}, {"status": "500 No"}, {"status": "200 OK", "cut": 1500}):
            vars(server).update(change)
            wrong = registered(url, sha256="0" * 64)
            verdict = await Quiet(reader).in_the_end(wrong)
            assert isinstance(verdict, RejectImage)
            if "404" not in server.status:
                assert "hunter" not in verdict.detail
            reader.sweep(())
        notes = [path.read_text() for path in (tmp_path / "imports").glob("*.json")]
    assert not any("hunter" in note for note in notes)
