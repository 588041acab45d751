"""What is available can be had: nodes get the bytes of images from the handlers that keep them."""

import asyncio
import hashlib
import os
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from domain.contract import MOST_PIECE, Fetch, ImageSource, Wanted
from handlers.images.pieces import Pieces
from handlers.images.store import ImageStore
from node_daemon.failure import Permanent, Temporary
from node_daemon.hypervisor.libvirt_adapter import LibvirtHypervisor
from node_daemon.main import serve
from node_daemon.storage import images as node_images
from node_daemon.storage.image_pieces import Bus
from runtime import subjects
from runtime.bus import replies
from runtime.bus.malformed import Malformed
from runtime.local.servers import NatsServer
from runtime.settings import NodeSettings
from runtime.tasks.tasks import end
from tests.eventstore.log import connection
from tests.handlers.platform import WriteSide, raw_disk, write_side
from tests.hostile_images import MIB
from tests.image_server import Images, ImageServer, serving
from tests.waiting import eventually

BODY = raw_disk(MIB) + random.Random(1).randbytes(4 * MIB)
SMALL = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
DIGEST = hashlib.sha256(BODY).hexdigest()


async def registered(side: WriteSide, id_: str, source: str, **more: Any) -> None:
    """A new image that is available."""
    await side.ok("system", "image", "register", {"image": id_, "name": id_, "source": source, **more})
    await eventually(lambda: side.has("system", "image", id_, "ImageVerified"), "image verified")


async def image_of(side: WriteSide, vm: str) -> ImageSource:
    """What the node of a new VM is told of its image."""
    document: Wanted = await eventually(lambda: side.wanted(vm), "wanted document")
    assert document.image is not None
    return document.image


@asynccontextmanager
async def daemon(side: WriteSide, name: str) -> AsyncIterator[None]:
    """A whole node daemon in this process, on libvirt's test driver. It may name no path of this host."""
    settings = NodeSettings(
        home=side.home / name,
        nats_url=side.nats.url,
        node=name,
        libvirt_uri="test:///default",
        image_hosts="127.0.0.1",
        heartbeat_seconds=0.2,
        resync_seconds=0.2,
        disk_gib=100,
    )
    hypervisor = LibvirtHypervisor(settings.libvirt_uri, settings.network, "test", settings.libvirt_deadline)
    task = asyncio.create_task(serve(settings, hypervisor))
    try:
        yield
    finally:
        await end([task])
        hypervisor.close()


async def test_a_source_that_is_good_only_for_a_while(servers_home: Path) -> None:
    """A URL that answers once; a file that is on the handlers' host alone, and gone there too by now."""
    home = servers_home / f"while-{uuid.uuid4().hex[:8]}"
    home.mkdir()
    async with write_side(home, NEBULA_NODE_TIMEOUT="60") as side, serving(BODY) as server:
        server.answers = 1
        await side.start()
        await side.cloud()
        await registered(side, "once", server.url)
        file = home / "own.raw"
        file.write_bytes(raw_disk(2 * MIB))
        await registered(side, "own", str(file))
        file.unlink()
        async with daemon(side, "n1"):
            await eventually(lambda: side.has("system", "node", "n1", "NodeRegistered"), "the node is there")
            vms = [await side.create(image=image, spec=SMALL) for image in ("once", "own")]
            for vm in vms:
                await eventually(partial(side.has, "default", "vm", vm, "VmStarted"), "it runs")
            assert len(server.requests) == 1, "the node did not ask the source"
            server.answers = None
            await registered(side, "asked", server.url, fetch="source")
            assert (await image_of(side, await side.create(image="asked", spec=SMALL))).fetch is Fetch.SOURCE
        server.answers = 0
        once = await image_of(side, vms[0])
        assert once.fetch is Fetch.PLATFORM
        assert (home / "n1" / "node" / "images" / f"{DIGEST}.raw").read_bytes() == BODY

        with pytest.raises(Permanent, match=r"403.*; the platform does not store") as caught:
            await Images(home / "n2", [], platform=Bus(side.nc, "n2")).ensure(once)
        assert caught.value.code == "image_missing", "no VM of n2 is made from it"

        (home / "image-store" / DIGEST).unlink()
        server.answers = None
        base = await Images(home / "n3", [], platform=Bus(side.nc, "n1")).ensure(once)
        assert base.path.read_bytes() == BODY, "it is not kept any more"

        await side.stop_all()
        await side.start()
        await eventually((home / "image-store" / DIGEST).exists, "it is kept again")


@dataclass
class Holder:
    """Handlers that may keep one image, which a VM of the node is made from, in this process."""

    nc: Client
    node: str
    store: ImageStore
    malformed: Malformed = field(default_factory=Malformed)
    #: the offsets of the pieces that were asked for; and after how many of them nothing is sent any more
    offsets: list[int] = field(default_factory=list)
    most: int | None = None
    hesitate: float = 0.0

    def __post_init__(self) -> None:
        image = SimpleNamespace(sha256=DIGEST, source="http://192.0.2.1/")
        world: Any = SimpleNamespace(
            node=lambda id_: SimpleNamespace(reservations={"v": 1}) if id_ == self.node else None,
            vm=lambda _: SimpleNamespace(state=SimpleNamespace(image="i", rescue=None)),
            image=lambda _: image,
            reached=lambda _: asyncio.sleep(0),
        )
        events: Any = SimpleNamespace(last_position=lambda: asyncio.sleep(0))
        self.pieces = Pieces(self.nc, events, world, self.store, [], self.malformed, self.hesitate)
        read = self.pieces._read

        def counted(request: Any) -> bytes | None:
            self.offsets.append(request.offset)
            return None if self.most is not None and len(self.offsets) > self.most else read(request)

        self.pieces._read = counted  # type: ignore[method-assign]


@pytest.fixture
async def nc(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with connection(nats_server.url) as nc:
        yield nc


@pytest.fixture
async def holder(nc: Client, tmp_path: Path) -> AsyncIterator[Holder]:
    store = ImageStore(tmp_path / "store")
    (tmp_path / "store" / DIGEST).write_bytes(BODY)
    made = Holder(nc, f"n{os.urandom(4).hex()}", store)
    await made.pieces.start()
    await nc.flush()
    yield made
    await made.pieces.stop()


@pytest.fixture
async def server() -> AsyncIterator[ImageServer]:
    async with serving(BODY) as server:
        server.status = "403 Forbidden"
        yield server


@pytest.fixture
def source(server: ImageServer) -> ImageSource:
    return ImageSource(
        image="i",
        source=server.url,
        fetch=Fetch.PLATFORM,
        sha256=DIGEST,
        format="raw",
        size_bytes=len(BODY),
        virtual_size_bytes=len(BODY),
    )


def node(tmp_path: Path, nc: Client, name: str, **more: Any) -> Images:
    return Images(tmp_path / "images", [tmp_path], platform=Bus(nc, name, **more))


async def test_what_breaks_off_is_gone_on_with(tmp_path: Path, nc: Client, holder: Holder, source: ImageSource) -> None:
    holder.most = 7
    with pytest.raises(Temporary, match="other bytes"):
        await node(tmp_path, nc, holder.node).ensure(source)
    [part] = (tmp_path / "images").glob("*.part")
    assert part.stat().st_size == 7 * MOST_PIECE
    other = Holder(nc, f"{holder.node}-other", holder.store)  # some questions to the first may still be on their way
    holder.pieces._hesitate = 3600.0
    await other.pieces.start()
    heard: list[int] = []
    base = await node(tmp_path, nc, other.node).ensure(source, lambda stage, done, total: heard.append(done))
    assert base.path.read_bytes() == BODY
    assert other.offsets == list(range(7 * MOST_PIECE, len(BODY), MOST_PIECE)), "nothing twice"
    assert heard == sorted(heard) and (heard[0], heard[-1]) == (7 * MOST_PIECE, len(BODY))
    assert [path.name for path in (tmp_path / "images").iterdir()] == [base.path.name], "nothing else is left"


async def test_who_keeps_it_is_heard_before_others(
    tmp_path: Path, nc: Client, holder: Holder, source: ImageSource
) -> None:
    other = Holder(nc, holder.node, ImageStore(tmp_path / "empty"), hesitate=3600.0)
    await other.pieces.start()
    assert (await node(tmp_path, nc, holder.node).ensure(source)).path.read_bytes() == BODY
    assert other.offsets == []
    await other.pieces.stop()


async def test_what_came_from_the_source_counts_too(
    tmp_path: Path, nc: Client, holder: Holder, source: ImageSource, server: ImageServer
) -> None:
    server.status, server.cut = "200 OK", 2 * MIB
    images = node(tmp_path, nc, holder.node)
    with pytest.raises(Temporary):
        await images.ensure(source.model_copy(update={"fetch": Fetch.SOURCE}))
    assert holder.offsets == [], "who wants the source gets the source"
    assert (await images.ensure(source)).path.read_bytes() == BODY
    assert holder.offsets[0] == 2 * MIB
    assert len(server.requests) == 1


async def test_what_is_not_kept_any_more_comes_from_the_source(
    tmp_path: Path, nc: Client, holder: Holder, source: ImageSource, server: ImageServer
) -> None:
    (tmp_path / "store" / DIGEST).unlink()
    with pytest.raises(Permanent, match=r"403.*; the platform does not store image i any more") as caught:
        await node(tmp_path, nc, holder.node).ensure(source)
    assert caught.value.code == "image_missing"
    server.status = "200 OK"
    heard = set()
    base = await node(tmp_path, nc, holder.node).ensure(source, lambda stage, *_: heard.add(stage))
    assert base.path.read_bytes() == BODY
    assert heard == {"from source"}


async def test_wrong_bytes_are_refused(
    tmp_path: Path, nc: Client, holder: Holder, source: ImageSource, server: ImageServer
) -> None:
    for wrong in (os.urandom(len(BODY)), BODY[:-1]):
        (tmp_path / "store" / DIGEST).write_bytes(wrong)
        with pytest.raises(Permanent, match=r"403.*; the platform.s copy of .* is not the image"):
            await node(tmp_path, nc, holder.node).ensure(source)
        assert list((tmp_path / "images").iterdir()) == []
    server.status = "200 OK"
    assert (await node(tmp_path, nc, holder.node).ensure(source)).path.read_bytes() == BODY


async def test_while_nobody_answers_the_source_is_left_alone(
    tmp_path: Path, nc: Client, source: ImageSource, server: ImageServer
) -> None:
    with pytest.raises(Temporary, match="handlers do not say which process stores image i"):
        await node(tmp_path, nc, "lonely").ensure(source)
    assert server.requests == []


async def test_no_room(
    tmp_path: Path, nc: Client, holder: Holder, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_images, "room", lambda _: MIB)
    with pytest.raises(Permanent, match=f"needs {len(BODY)} more bytes") as caught:
        await node(tmp_path, nc, holder.node).ensure(source)
    assert caught.value.code == "disk_full"
    assert holder.offsets == []


async def test_a_file_of_this_host_does_not_travel(
    tmp_path: Path, nc: Client, holder: Holder, source: ImageSource
) -> None:
    (tmp_path / "i.raw").write_bytes(BODY)
    here = source.model_copy(update={"source": str(tmp_path / "i.raw")})
    nobody: Any = None  # to ask it would fail
    assert (await Images(tmp_path / "images", [tmp_path], platform=Bus(nobody, "n")).ensure(here)).path.exists()
    (tmp_path / "i.raw").write_bytes(os.urandom(len(BODY)))  # another file has its name by now
    images = Images(tmp_path / "other", [tmp_path], platform=Bus(nc, holder.node))
    assert (await images.ensure(here)).path.read_bytes() == BODY


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b'{"node": "NODE", "sha256": "../../../etc/passwd"}',
        b'{"node": "NODE", "sha256": "%s\\n"}' % DIGEST.encode(),
        b'{"node": "other", "sha256": "%s", "offset": 0, "length": 1}' % DIGEST.encode(),
        b'{"node": "NODE", "sha256": "%s", "offset": -1, "length": 1}' % DIGEST.encode(),
        b'{"node": "NODE", "sha256": "%s", "offset": 0, "length": 99999999}' % DIGEST.encode(),
    ],
)
async def test_hostile_questions(nc: Client, holder: Holder, question: bytes) -> None:
    asked = question.replace(b"NODE", holder.node.encode())
    answer = await nc.request(subjects.image_piece(holder.node, holder.pieces.holder), asked)
    refused = replies.read(answer.data)
    assert isinstance(refused, replies.Refusal) and (refused.code, refused.status) == ("invalid_request", 422)
    assert holder.malformed.of("image-pieces")
    assert holder.offsets == []


async def test_what_is_no_business_of_the_node(nc: Client, holder: Holder, tmp_path: Path) -> None:
    (tmp_path / "store" / ("0" * 64)).write_bytes(b"another image")
    subject = subjects.image_piece(holder.node, holder.pieces.holder)
    ask = f'{{"node": "{holder.node}", "sha256": "{"0" * 64}", "offset": 0, "length": 9}}'
    answer = await nc.request(subject, ask.encode())
    refused = replies.read(answer.data)
    assert isinstance(refused, replies.Refusal) and (refused.code, answer.headers) == ("image_missing", None)


async def test_answers_go_to_inboxes_alone(nc: Client, holder: Holder) -> None:
    got: list[Msg] = []

    async def hear(msg: Msg) -> None:
        got.append(msg)

    await nc.subscribe("nebula.elsewhere", cb=hear)
    ask = f'{{"node": "{holder.node}", "sha256": "{DIGEST}", "offset": 0, "length": 9}}'.encode()
    subject = subjects.image_piece(holder.node, holder.pieces.holder)
    await nc.publish(subject, ask, reply="nebula.elsewhere")
    assert (await nc.request(subject, ask)).data == BODY[:9], "answered behind it, in order"
    await nc.flush()
    assert got == []
