"""A whole daemon on a bus without accounts: it answers the gateway, and nobody else who reaches the bus."""

import json
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from eventstore.log import keyring
from runtime import subjects
from runtime.ask_keys import CHALLENGE, NEW, SIGNATURE, signed
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
