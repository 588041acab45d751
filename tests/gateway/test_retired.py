"""A node that is gone for good: retired, in no list, and told so when it comes back."""

from domain import node
from domain.contract import Introduction, NodeInfo, Power
from domain.node import LoseNode
from eventstore.log.envelope import Context, Ref
from handlers.apply import apply, now
from tests.gateway.platform import VMS, Platform
from tests.handlers.platform import daemon
from tests.waiting import eventually


async def lose(api: Platform, name: str) -> None:
    """What liveness appends once a node was silent for long."""
    command = LoseNode(node=name, at=now(), silent_seconds=99)
    ref = Ref("system", "node", name)
    await apply(api.side.store, ref, node.decide, node.evolve, command, Context(actor="system:tests"))


async def test_a_node_that_is_gone_for_good(api: Platform) -> None:
    await api.side.node("gone-1", region="gone")
    made = await api.running(region="gone")
    vm, retire = made["vm"]["id"], "/v1/nodes/gone-1/retire"
    early = await api.call("POST", retire, {})
    assert (early.status_code, early.json()["code"]) == (409, "node_not_lost")
    await lose(api, "gone-1")

    async def lost() -> bool:
        return bool((await api.get(f"{VMS}/{vm}"))["phase"] == "lost")

    await eventually(lost, "the VM is lost with its node")
    done = await api.call("POST", retire, {}, Idempotency_Key="retire-1")
    assert done.status_code == 202, done.text
    assert (done.json()["operation"]["status"], done.json()["node"]["status"]) == ("succeeded", "retired")
    assert (await api.call("POST", retire, {}, Idempotency_Key="retire-1")).headers["Idempotent-Replayed"] == "true"
    shown = await api.http.get("/v1/nodes/gone-1")
    assert (shown.status_code, shown.json()["code"]) == (410, "node_retired")
    used = await api.http.get("/v1/nodes/gone-1/usage")
    assert (used.status_code, used.json()["code"]) == (410, "node_retired")
    assert "gone-1" not in [each["id"] for each in (await api.get("/v1/nodes"))["items"]]
    assert (await api.call("POST", "/v1/nodes/gone-1/cordon", {})).json()["code"] == "node_retired"

    info = NodeInfo.model_validate(
        {"node": "gone-1", "region": "gone", "vcpus": 4, "memory_mib": 4096, "disk_gib": 100, "virt_type": "test"}
        | {"seed_url": "http://192.0.2.1:8775/", "version": "0"}
    )
    back = Introduction(info=info, daemon=daemon("gone-1"), heir=True)
    refused = await api.side.register(back)
    assert refused["problem"]["code"] == "node_retired" and "NEBULA_TAKE_OVER" in refused["problem"]["detail"]
    wanted = await api.side.wanted(vm)
    assert wanted is not None
    await api.side.report(wanted, Power.ON, boots=1)  # nothing follows from it: the next report is heard after it
    forgotten = await api.call("POST", f"{VMS}/{vm}/forget", {"reason": "its host burnt down"})
    assert forgotten.status_code == 202, forgotten.text

    granted = await api.side.register(back.model_copy(update={"take_over": True}))
    assert granted["ok"]["lease"] == 2
    await eventually(lambda: api.side.has("system", "node", "gone-1", "CapacityReleased"), "its books are clean")
    assert (await api.get(f"/v1/nodes/gone-1?min_position={await api.side.store.last_position()}"))["status"] == "lost"
    await lose(api, "gone-1")
    assert (await api.call("POST", retire, {})).status_code == 202  # for the other tests: one node less
