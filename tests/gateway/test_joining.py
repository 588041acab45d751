"""A host joins over HTTP: real handlers decide, the log has the story, and a token is worth one use."""

import asyncio
import hashlib
import secrets
import uuid
from typing import Any

import httpx

from eventstore.log.envelope import Ref
from node_daemon.membership.credentials import new_seed, proven_keys, public
from runtime import possession
from tests.gateway.platform import Platform
from tests.waiting import eventually


def a_key() -> str:
    """The seed of a new key."""
    return new_seed()


def a_token(node: str) -> str:
    return f"nbj_{node}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def a_name() -> str:
    return f"n{uuid.uuid4().hex[:8]}"


async def issued(api: Platform, node: str, minutes: int = 60) -> str:
    token = a_token(node)
    body = {"digest": digest(token), "minutes": minutes}
    answer = await api.call("POST", f"/v1/enrollments/{node}/issue", body)
    assert answer.status_code in (200, 202), answer.text
    return token


async def join(api: Platform, node: str, token: str, key: str, guest: str = "") -> httpx.Response:
    """Join with keys of one's own, of which these are the seeds."""
    return await sent(api, node, token, **proven_keys(node, digest(token), key, guest))


async def sent(api: Platform, node: str, token: str, **keys: str) -> httpx.Response:
    return await api.call("POST", "/v1/join", {"node": node, "token": token, **keys})


async def story(api: Platform, node: str) -> list[Any]:
    events = await api.get("/v1/events?kind=enrollment&limit=500&after=0")
    return [e["type"].rsplit(".", 1)[1] for e in events["items"] if e["subject"].endswith(f".{node}")]


async def tells(api: Platform, node: str, expected: list[str]) -> None:
    """Wait until the log, as it is searched, has this story of the node, and no other."""

    async def told() -> bool:
        return await story(api, node) == expected

    await eventually(told, f"the story of {node}")


async def test_a_host_joins_and_nobody_else_with_its_token(api: Platform) -> None:
    node, key = a_name(), a_key()
    token = await issued(api, node)
    answer = await join(api, node, token, key)
    assert answer.status_code == 200, answer.text
    assert answer.json()["node"] == node and answer.json()["expires_at"] > answer.json()["now"]
    assert answer.headers["cache-control"] == "no-store"
    assert (await join(api, node, token, key)).status_code == 200  # its own repeat, after a lost answer
    for _ in range(2):
        second = await join(api, node, token, a_key())
        assert (second.status_code, second.json()["code"]) == (401, "join_token_used")
    end = await api.gateway.store.last_position()
    shown = await api.get(f"/v1/enrollments/{node}?min_position={end}")
    assert (shown["status"], shown["public_key"]) == ("joined", public(key))
    assert token not in str(shown) and digest(token) not in str(shown)
    await tells(api, node, ["JoinTokenIssued", "NodeJoined", "JoinTokenReused"])


async def test_of_two_hosts_at_the_same_time_one_joins(api: Platform) -> None:
    node = a_name()
    token = await issued(api, node)
    answers = await asyncio.gather(*(join(api, node, token, a_key()) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[401] * 7]
    await tells(api, node, ["JoinTokenIssued", "NodeJoined", "JoinTokenReused"])


async def test_a_token_is_of_one_node(api: Platform) -> None:
    one, other = a_name(), a_name()
    token = await issued(api, one)
    await issued(api, other)
    for node, given in ((other, token), (a_name(), token), (one, a_token(one))):
        answer = await join(api, node, given, a_key())
        assert (answer.status_code, answer.json()["code"]) == (401, "join_token_invalid"), answer.text
    assert (await join(api, one, token, a_key())).status_code == 200


async def test_what_is_no_token_or_key_is_refused(api: Platform) -> None:
    node = a_name()
    token = await issued(api, node)
    mine = public(a_key())
    for given, key in ((digest(token), mine), (token, "x"), (token, "U" + "A" * 54), (token + "x", mine)):
        assert (await sent(api, node, given, public_key=key)).status_code == 422
    for proof in ("", "x", "A" * 88, "=" * 88):
        assert (await sent(api, node, token, public_key=mine, proof=proof)).status_code == 422


async def refused(api: Platform, node: str, token: str, code: str, **keys: str) -> str:
    """The detail of the refusal. The token is not used by it."""
    answer = await sent(api, node, token, **keys)
    assert (answer.status_code, answer.json()["code"]) == (401, code), answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    await tells(api, node, ["JoinTokenIssued"])
    return str(answer.json()["detail"])


async def test_a_key_of_another_host_is_refused(api: Platform) -> None:
    """Also if its public key, and what that host itself has sent to join, are known."""
    theirs, victim = a_key(), a_name()
    first = await issued(api, victim)
    known = proven_keys(victim, digest(first), theirs)
    assert (await sent(api, victim, first, **known)).status_code == 200
    node = a_name()
    token = await issued(api, node)
    mine = a_key()
    text = possession.text(node, digest(token), public(theirs), None)
    forged = {"public_key": public(theirs), "proof": possession.proof(mine, text)}
    for keys in (known, forged):
        await refused(api, node, token, "join_proof_invalid", **keys)
    both = proven_keys(node, digest(token), mine, a_key())
    for keys in (
        {**both, "guest_key": public(theirs)},
        {**both, "guest_key": public(theirs), "guest_proof": both["proof"]},
        {**both, "guest_proof": both["proof"]},
        {**both, "proof": both["guest_proof"]},
        {"public_key": both["guest_key"], "guest_key": both["public_key"], "proof": both["guest_proof"],
         "guest_proof": both["proof"]},
        {"public_key": both["public_key"], "proof": both["proof"]},
    ):  # fmt: skip
        await refused(api, node, token, "join_proof_invalid", **keys)
    assert (await sent(api, node, token, **both)).status_code == 200
    assert (await api.call("POST", f"/v1/enrollments/{node}/revoke")).status_code in (200, 202)
    assert (await api.get(f"/v1/enrollments/{victim}"))["status"] == "joined"


async def test_a_proof_is_for_one_token_and_one_node(api: Platform) -> None:
    one, other, key = a_name(), a_name(), a_key()
    token, later = await issued(api, one), await issued(api, other)
    await refused(api, other, later, "join_proof_invalid", **proven_keys(one, digest(token), key))
    await refused(api, other, later, "join_proof_invalid", **proven_keys(one, digest(later), key))
    await refused(api, other, later, "join_proof_invalid", **proven_keys(other, digest(token), key))
    assert (await join(api, other, later, key)).status_code == 200


async def test_a_host_of_an_earlier_version_learns_what_to_do(api: Platform) -> None:
    node, key = a_name(), a_key()
    token = await issued(api, node)
    why = await refused(api, node, token, "join_proof_missing", public_key=public(key))
    assert "install the version of the platform" in why and "not used" in why
    keys = proven_keys(node, digest(token), key, a_key())
    del keys["guest_proof"]
    await refused(api, node, token, "join_proof_missing", **keys)
    assert (await join(api, node, token, key)).status_code == 200


async def test_a_refused_proof_is_seen(api: Platform) -> None:
    node = a_name()
    await refused(api, node, await issued(api, node), "join_proof_missing", public_key=public(a_key()))

    async def seen() -> bool:
        found = (await api.get("/v1/refusals?limit=100"))["items"]
        return ("join_proof_missing", "/v1/join") in [(one["code"], one["path"]) for one in found]

    await eventually(seen, "the refusal is recorded")


async def test_a_revocation_is_an_event(api: Platform) -> None:
    node = a_name()
    token = await issued(api, node)
    assert (await join(api, node, token, a_key())).status_code == 200
    assert (await api.call("POST", f"/v1/enrollments/{node}/revoke")).status_code in (200, 202)
    assert (await api.get(f"/v1/enrollments/{node}"))["status"] == "revoked"
    again = await api.call("POST", f"/v1/enrollments/{node}/revoke")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_revoke")


async def test_a_retired_node_loses_its_key_and_token(api: Platform) -> None:
    node = a_name()
    await api.side.node(node)
    assert (await join(api, node, await issued(api, node), a_key())).status_code == 200
    waiting = await issued(api, node)
    await lost(api, node)
    assert (await api.call("POST", f"/v1/nodes/{node}/retire")).status_code in (200, 202)

    async def ended() -> bool:
        return str((await api.get(f"/v1/enrollments/{node}"))["status"]) == "revoked"

    await eventually(ended, "the enrollment is revoked")
    answer = await join(api, node, waiting, a_key())
    assert (answer.status_code, answer.json()["code"]) == (401, "join_token_invalid")
    assert (await join(api, node, await issued(api, node), a_key())).status_code == 200


async def lost(api: Platform, node: str) -> None:
    from domain import node as nodes
    from handlers.apply import apply, manager, now

    command = nodes.LoseNode(node=node, at=now(), silent_seconds=60)
    ref = Ref("system", "node", node)
    await apply(api.gateway.store, ref, nodes.decide, nodes.evolve, command, manager("test"))
