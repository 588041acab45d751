"""The node key of a host that joined: it comes with the join, and with nothing else."""

from pathlib import Path

from nats.aio.msg import Msg

from domain.contract.joining import Joined
from node_daemon.membership.credentials import Files, applied, public
from node_daemon.membership.node_key import node_key
from node_daemon.membership.renewal import renew
from runtime import subjects
from runtime.bus import bus, replies
from runtime.local.servers import NatsServer
from runtime.sealed import seal
from runtime.settings import Common, NodeSettings

MINE, FORGED = b"k" * 32, b"f" * 32


def answer(seed: str, key: bytes | None) -> Joined:
    sealed = "" if key is None else seal(public(seed), key)
    return Joined(node="n7", expires_at=20, now=10, nats_url="nats://127.0.0.1:1", node_key=sealed)


def key_of(home: Path) -> bytes | None:
    return node_key(applied(NodeSettings(home=home)))


async def test_who_answers_a_renewal_gives_no_node_key(nats_server: NatsServer, tmp_path: Path) -> None:
    """Anybody can seal a key for a host whose public key is known."""
    files = Files(tmp_path)
    seed = files.pending("d").seed
    held = files.store(answer(seed, MINE), seed, "https://platform", nats_server.url)
    nc = await bus.connect(Common(nats_url=nats_server.url), "tests")
    forged = [answer(seed, FORGED), answer(seed, None), answer(seed, FORGED)]

    async def reply(msg: Msg) -> None:
        await msg.respond(replies.accepted(forged.pop()))

    await nc.subscribe(subjects.renew("n7"), cb=reply)
    while forged:
        held = await renew(nc, files, held)
        assert held.keyed
        assert key_of(tmp_path) == MINE
    await nc.close()


def test_a_host_of_before_gets_a_key_when_it_joins_again(tmp_path: Path) -> None:
    files = Files(tmp_path)
    seed = files.pending("d").seed
    assert not files.store(answer(seed, None), seed, "https://platform", "nats://127.0.0.1:1").keyed
    assert key_of(tmp_path) is None
    assert files.store(answer(seed, MINE), seed, "https://platform", "nats://127.0.0.1:1").keyed
    assert key_of(tmp_path) == MINE
