"""A whole daemon on a bus without accounts: it answers the gateway, and nobody else who reaches the bus."""

import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from nats.aio.msg import Msg
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from eventstore.log import keyring
from runtime import subjects
from runtime.ask_keys import CHALLENGE, NEW, SIGNATURE, Challenges, signed
from runtime.node_keys import MAC
from tests.event_keys import STRANGER
from tests.gateway.platform import VMS, Platform
from tests.node_process import node_process, simulated
from tests.waiting import eventually

NODE = "asked-001"


async def code(api: Platform, subject: str, body: bytes, headers: dict[str, str] | None) -> str:
    answer = await api.side.nc.request(subject, body, timeout=5, headers=headers)
    return str(json.loads(answer.data)["problem"]["code"])


async def test_only_the_gateway_is_answered(api: Platform, tmp_path: Path) -> None:
    side, heard = api.side, list[tuple[str, bytes, dict[str, str]]]()

    async def note(msg: Msg) -> None:
        heard.append((msg.subject, msg.data, dict(msg.headers or {})))

    listening = await side.nc.subscribe(subjects.asks_of(NODE), cb=note)
    signing = {"NEBULA_NODE_KEYS_FILE": str(side.home / "node.keys")}
    async with node_process(tmp_path / "node", side.nats.url, *simulated("asked"), **signing):

        async def registered() -> bool:
            return (await api.http.get(f"/v1/nodes/{NODE}")).status_code == 200

        await eventually(registered, "the node is there")
        vms = [str((await api.create(name=name, region="asked"))["vm"]["id"]) for name in ("asked-1", "asked-2")]

        async def says(vm: str = vms[0]) -> bool:
            return (await api.http.get(f"{VMS}/{vm}/guest")).status_code == 200

        await eventually(says, "the gateway is answered")
        await eventually(lambda: says(vms[1]), "for both")
        subject, body, headers = next(each for each in heard if SIGNATURE in each[2])
        other = json.dumps({"vm": vms[1]}).encode()
        challenged = (await side.nc.request(subject, body, timeout=5, headers={CHALLENGE: NEW})).headers
        assert challenged is not None
        challenge = challenged[CHALLENGE]
        forged: list[tuple[str, bytes, dict[str, str] | None]] = [
            (subject, body, headers),
            (subject, body, None),
            (subject, other, headers),
            (subject, other, {**headers, CHALLENGE: challenge}),
            (subjects.ask(NODE, "console-log"), body, headers),
            (subject, body, signed(STRANGER.secret, subject, challenge, body)),
        ]
        for each in forged:
            assert await code(api, *each) == "ask_refused"

        async def counted() -> bool:
            found: dict[str, Any] = (await api.http.get("/healthz")).json()["malformed"]
            return "asks" in found and found["asks"]["count"] == len(forged) and NODE in found["asks"]["last_reason"]

        await eventually(counted, "each is seen")
        keyring.rotate(side.home / "event.keys")
        await eventually(says, "the node learns the new key")
    await listening.unsubscribe()


async def test_nobody_else_answers_for_a_node(api: Platform, tmp_path: Path) -> None:
    """The daemon is frozen, and somebody else who hears all on the bus answers the gateway in its place."""
    side, true = api.side, list[Msg]()

    async def note(msg: Msg) -> None:
        if MAC in (msg.headers or {}) and b'"ok"' in msg.data:
            true.append(msg)

    def imposter(*headers: dict[str, str], data: bytes) -> Callable[[Msg], Awaitable[None]]:
        """Gives a challenge for a question without a signature, and then this answer."""

        async def answer(msg: Msg) -> None:
            if SIGNATURE in (msg.headers or {}):
                await side.nc.publish(msg.reply, data, headers=headers[-1])
            else:
                await side.nc.publish(msg.reply, data, headers=headers[0])

        return answer

    listening = await side.nc.subscribe("_INBOX.>", cb=note)
    signing = {"NEBULA_NODE_KEYS_FILE": str(side.home / "node.keys")}
    async with node_process(tmp_path / "node", side.nats.url, *simulated("forged"), **signing) as node:

        async def registered() -> bool:
            return (await api.http.get("/v1/nodes/forged-001")).status_code == 200

        await eventually(registered, "the node is there")
        vm = str((await api.create(name="forged-1", region="forged"))["vm"]["id"])

        async def guest() -> httpx.Response:
            return await api.http.get(f"{VMS}/{vm}/guest")

        async def answered() -> bool:
            return (await guest()).status_code == 200

        await eventually(answered, "the node answers")
        truth = true[-1]
        assert truth.headers is not None
        node.signal(signal.SIGSTOP)
        challenge = {CHALLENGE: Challenges().new()}
        forged = json.dumps({"ok": {"hostname": "forged"}}).encode()
        for attempt in (
            imposter(challenge, {}, data=forged),
            imposter(challenge, dict(truth.headers), data=truth.data),
            imposter(challenge, dict(truth.headers), data=forged),
            imposter({}, data=forged),
            imposter(dict(truth.headers), data=truth.data),
            imposter({}, data=json.dumps({"problem": {"code": "x", "status": 409, "detail": "d"}}).encode()),
        ):
            rival = await side.nc.subscribe(subjects.ask("forged-001", "guest"), cb=attempt)
            answer = await guest()
            await rival.unsubscribe()
            assert (answer.status_code, answer.json()["code"]) == (503, "node_unproven"), answer.text
    await listening.unsubscribe()


async def test_the_bytes_of_a_console_are_sealed(api: Platform, tmp_path: Path) -> None:
    side, heard = api.side, list[Msg]()

    async def note(msg: Msg) -> None:
        heard.append(msg)

    signing = {"NEBULA_NODE_KEYS_FILE": str(side.home / "node.keys")}
    async with node_process(tmp_path / "node", side.nats.url, *simulated("sealed"), **signing):

        async def registered() -> bool:
            return (await api.http.get("/v1/nodes/sealed-001")).status_code == 200

        await eventually(registered, "the node is there")
        vm = str((await api.create(name="sealed-1", region="sealed"))["vm"]["id"])

        async def runs() -> bool:
            return bool((await api.http.get(f"{VMS}/{vm}")).json()["phase"] == "running")

        await eventually(runs, "the VM runs")
        listening = await side.nc.subscribe("nebula.nodes.sealed-001.sessions.>", cb=note)
        url = f"ws{api.url.removeprefix('http')}{VMS}/{vm}/console"
        async with connect(url, compression=None, proxy=None, subprotocols=[Subprotocol("binary")]) as socket:
            for word in (b"first words", b"and more"):
                await socket.send(word)
                got = b""
                while word.upper() not in got.upper():
                    part = await socket.recv()
                    got += part.encode() if isinstance(part, str) else part
                for msg in list(heard):  # whoever hears them sends them again, and something of its own
                    await side.nc.publish(msg.subject, msg.data)
                    await side.nc.publish(msg.subject, b"E" + bytes(8) + b"ended by a stranger")
        await listening.unsubscribe()
        ends = {msg.subject.rsplit(".", 1)[-1] for msg in heard}
        assert ends == {"node", "gateway"}
        assert not any(b"words" in msg.data or b"WORDS" in msg.data for msg in heard)


async def test_a_node_that_gives_nonsense_for_a_challenge_gets_no_signature(api: Platform) -> None:
    vm = (await api.running(name="nonsense"))["vm"]["id"]
    heard = list[dict[str, str]]()

    async def answer(msg: Msg) -> None:
        heard.append(dict(msg.headers or {}))
        await side.nc.publish(msg.reply, b"{}", headers={CHALLENGE: "1-2-3"})

    side = api.side
    asked = await side.nc.subscribe(subjects.ask("host-1", "guest"), cb=answer)
    found = (await api.http.get(f"{VMS}/{vm}/guest")).json()
    await asked.unsubscribe()
    assert (found["status"], found["code"]) == (502, "node_answer_invalid")
    assert heard == [{CHALLENGE: NEW}]
