"""The API against its own description: schemathesis makes 20 calls of each operation, valid ones and broken ones
(fuzzing), and one call for each bound and each word of each operation (coverage). `EXAMPLES=200` makes 200 calls.

The platform is real: a gateway, handlers, read models, and a node that this test answers for. Where a valid call needs
something that exists, the real one is put in: ids, positions of the log, page tokens. The seed is fixed, and nothing is
kept between runs. A feed is followed up to its first frame; the WebSockets are called as what they are not.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, note, settings, strategies as st
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.generation.drivers import CoverageGenerator
from schemathesis.generation.feedback import NO_FEEDBACK
from schemathesis.generation.overrides import Override
from schemathesis.specs.openapi import checks

from domain.contract import Power
from eventstore.parking.parking import Parking
from gateway.table.reads import described
from node_daemon.asks.answers import Answers
from node_daemon.hypervisor.hypervisor import Boot
from node_daemon.simulation.simulated_host import SimulatedHost
from node_daemon.simulation.simulator import Simulator
from node_daemon.storage.disks import Disks
from node_daemon.usage.host import Host as NodeHost
from node_daemon.usage.sampler import Sampler
from node_daemon.usage.series import Series
from runtime.local.servers import Postgres
from runtime.tasks.tasks import end
from tests.gateway.platform import VMS, Platform, platform, served
from tests.waiting import eventually

if TYPE_CHECKING:
    from schemathesis.specs.openapi.schemas import OpenApiCase, OpenApiOperation

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG" + "A" * 42
schemathesis.openapi.format("ssh-public-key", st.just(KEY))
#: What schemathesis takes for marks (`\p{M}`) though Unicode has not assigned it: no pattern allows it.
NO_MARK = re.compile("[\u20f1-\u20ff]")
SETTINGS = settings(
    max_examples=int(os.environ.get("EXAMPLES", "20")),
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

FEW = settings(SETTINGS, max_examples=4)


#: They lead a browser elsewhere, whatever it sends: tests/gateway/test_code_login.py.
LEADING = ("/v1/login/begin", "/v1/login/done")


def schema(phase: str) -> schemathesis.BaseSchema:
    """What the API says of itself, for one phase."""
    phases = {name: {"enabled": name == phase} for name in ("examples", "coverage", "fuzzing", "stateful")}
    generation = {"allow-x00": True, "with-security-parameters": False}
    config = schemathesis.Config.from_dict({"generation": generation, "phases": phases})
    said = json.loads(described())
    for path in LEADING:
        del said["paths"][path]
    if phase == "fuzzing":
        drop_long_bounds(said)
    return schemathesis.openapi.from_dict(said, config=config)


def drop_long_bounds(node: object) -> None:
    """Without the bounds of texts that have a pattern and may be longer than all that fuzzing makes.

    schemathesis writes such a bound into the pattern (`{0,65536}`), and compiles that at each example, for 0.1 s.
    The coverage phase tries these bounds.
    """
    if isinstance(node, dict):
        if "pattern" in node and node.get("maxLength", 0) > 10_000:
            del node["maxLength"]
        node = list(node.values())
    for each in node if isinstance(node, list) else ():
        drop_long_bounds(each)


SCHEMA = schema("fuzzing")
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
#: Who may do little is refused before that.
REFUSED = [check for check in CHECKS if check is not checks.negative_data_rejection]
#: What may stand in the way of a valid call: the state. 422 as well, when a rule says so, and not the shape.
OF_THE_STATE = {404, 409, 410, 422, 426}
OF_THE_SHAPE = {"invalid_request", "invalid_json", "invalid_parameter"}


@dataclass
class World:
    """What there is: ids by the name of the path parameter, and the end of the log."""

    url: str
    ids: dict[str, list[str]]
    end: int
    callers: dict[str, requests.Session]

    @property
    def http(self) -> requests.Session:
        return self.callers["operator"]

    def chosen(self, name: str, given: object) -> str:
        """One of what there is, which one depends on what was generated."""
        known = self.ids[name]
        return known[sum(str(given).encode()) % len(known)]

    def continued(self, case: OpenApiCase) -> dict[str, str]:
        """The token of the page behind the first one, where there is one: of this very list, with these filters."""
        first = self.http.get(self.url + case.formatted_path, params={**case.query, "limit": 1}, timeout=30)
        token = first.json().get("next_page_token") if first.ok else None
        return {"page_token": token} if token else {}

    def put_in(self, case: OpenApiCase) -> None:
        """Put what exists into the valid parts of a call, and short waits."""
        whole = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
        for name, given in case.path_parameters.items():
            if whole or not broken(case, "path_parameters"):
                case.path_parameters[name] = self.chosen(name, given)
        if not whole:
            case.query.update({"wait": "0.01s"} if "wait" in case.query and not broken(case, "query") else {})
            return
        for name, given in list(case.query.items()):
            if isinstance(given, str):
                case.query[name] = NO_MARK.sub("x", given)
            if name in ("at", "from", "to") and not str(given).isdigit():
                case.query[name] = "2026-01-01T00:00:00Z" if name != "to" else self.end
            elif name in ("at", "from", "to", "after", "min_position"):
                case.query[name] = int(given) % self.end
            elif name == "ticket":
                del case.query[name]
            elif name == "wait":
                case.query[name] = "0.01s"
        if "wait" in case.query:
            case.query.pop("at", None)
        if "after" in case.query and case.path.endswith("/feed"):
            case.query.pop("from", None)
        if case.headers and "Last-Event-ID" in case.headers:
            case.headers["Last-Event-ID"] = str(int(case.headers["Last-Event-ID"]) % self.end)
        if "page_token" in case.query:
            case.query.pop("page_token")
            case.query.update(self.continued(case))
        body = case.body
        if isinstance(body, dict):
            body = case.body = json.loads(NO_MARK.sub("x", json.dumps(body, ensure_ascii=False)))
            for name, kind in (("image", "image"), ("project", "project")):
                if body.get(name):
                    body[name] = self.chosen(kind, body[name])
            if body.get("tags"):
                body["tags"] = [self.chosen("tag", each) for each in body["tags"]]
            if body.get("region"):
                body["region"] = "default"
            if body.get("ssh_keys"):  # (coverage reads the pattern, and not the format)
                body["ssh_keys"] = [KEY for _ in body["ssh_keys"]]
            if "source" in body and not str(body["source"]).startswith("/"):
                body["source"] = "http://127.0.0.1:9/none"


def broken(case: OpenApiCase, part: str) -> bool:
    assert case.meta is not None
    return any(
        location.container_name == part and info.mode is GenerationMode.NEGATIVE
        for location, info in case.meta.components.items()
    )


def hashed(who: str) -> str:
    return hashlib.sha256(f"token-of-{who}".encode()).hexdigest()


async def world(api: Platform, url: str, disks: Disks, simulator: Simulator) -> World:
    """Some of everything."""
    made = {name: (await api.running(name=name))["vm"]["id"] for name in ("running", "stopped", "paused")}
    for vm in made.values():
        disks.console(vm).write_bytes(b"login: ")
        wanted = await api.side.wanted(vm)
        assert wanted is not None
        await simulator.start(Boot(wanted, "/disk", "/base", "raw", "/console", "host-boot"))
    for name, verb, power in (("stopped", "stop", Power.OFF), ("paused", "pause", Power.PAUSED)):
        await api.call("POST", f"{VMS}/{made[name]}/{verb}", {"force": True} if verb == "stop" else None)
        await api.report(made[name], power, boots=1)
    placed = (await api.create(name="placed"))["vm"]["id"]
    unplaced = (await api.create(name="unplaced", region="elsewhere"))["vm"]["id"]
    await api.call("POST", "/v1/tags", {"name": "Blue"})
    await api.call("POST", "/v1/flavors", {"name": "Small", "vcpus": 1, "memory_mib": 64, "disk_gib": 1})
    await api.call("POST", "/v1/projects", {"id": "other", "name": "Other"})
    await api.call("POST", "/v1/users", {"id": "alice", "name": "Alice"})
    await api.call("POST", "/v1/service-accounts", {"id": "ci", "name": "CI"})
    token = (await api.call("POST", "/v1/tokens", {"name": "Laptop", "principal": "user:alice"})).json()["token"]["id"]
    await api.call("POST", "/v1/enrollments/host-2/issue", {"digest": "0" * 64})
    await api.side.heartbeat("host-1")
    parking = Parking(api.side.nc)
    for number in range(60):
        await parking.park("log", f"p-{number}", subject="nebula.events.x", position=10**6 + number, error="nonsense")

    async def all_parked() -> bool:
        return len((await api.get("/v1/parked?limit=100"))["items"]) == 60

    await eventually(all_parked, "parked messages are known")
    operations = (await api.get("/v1/operations"))["items"]
    ids = {
        "project": ["default"],
        "vm": [*made.values(), placed, unplaced],
        "image": ["base"],
        "tag": ["blue"],
        "flavor": ["small"],
        "node": ["host-1"],
        "user": ["alice"],
        "service_account": ["ci"],
        "token": [token],
        "enrollment": ["host-2"],
        "operation": [each["id"] for each in operations],
        "event": [str(each["position"]) for each in operations],
        "source": ["log"],
        "key": [f"p-{number}" for number in range(60)],
    }
    end = (await api.get("/healthz"))["postgres"]["position"]
    callers = {who: requests.Session() for who in ("operator", "viewer", "none")}
    for session in callers.values():
        session.trust_env = False  # or each call reads all variables of the environment, for a proxy
    for who in ("operator", "viewer"):
        callers[who].headers["Authorization"] = f"Bearer token-of-{who}"
    return World(url, ids, end, callers)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[World]:
    """A platform in a thread of its own: what schemathesis makes of a test is not asynchronous."""
    home: Path = tmp_path_factory.mktemp("described")
    loop = asyncio.new_event_loop()
    ready: Future[World] = Future()
    over = asyncio.Event()

    async def live() -> None:
        try:
            tokens = home / "tokens"
            tokens.write_text(f"operator {hashed('operator')}\nviewer {hashed('viewer')} viewer@default\n")
            async with (
                platform(home, postgres) as api,
                served(api.side, api.dsn, tokens_file=tokens, refusals_per_minute=1_000_000) as (_, url),
            ):
                disks = Disks(home / "disks")
                simulator = Simulator(SimulatedHost("host-1"))
                series = Series(home / "usage.series")
                sampler = Sampler("host-1", 1, simulator.usage, NodeHost(home).usage, series)
                await sampler.sample()
                answers = Answers(api.side.nc, "host-1", disks, simulator, sampler=sampler)
                serving = asyncio.create_task(answers.serve())
                ready.set_result(await world(api, url, disks, simulator))
                await over.wait()
                await end([serving])
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),))
    thread.start()
    made = ready.result(120)
    yield made
    for session in made.callers.values():
        session.close()
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@SCHEMA.parametrize()
@SETTINGS
def test_calls(case: OpenApiCase, there: World) -> None:
    there.put_in(case)
    feed = case.path.endswith("/feed")
    response = call(case, there, stream=feed)
    case.validate_response(response, checks=CHECKS)
    accepted(case, response)


#: Calls that need no token.
PATHS: dict[str, dict[str, dict[str, object]]] = json.loads(described())["paths"]
OPEN = {path for path, methods in PATHS.items() for each in methods.values() if each["x-permission"] == "open"}


@SCHEMA.parametrize()
@FEW
def test_calls_of_those_who_may_do_little(case: OpenApiCase, there: World) -> None:
    """What they are refused is described as well, and nothing of theirs is an error of ours."""
    there.put_in(case)
    for who in ("viewer", "none"):
        note(f"called by {who}")
        response = call(case, there, stream=case.path.endswith("/feed"), who=who)
        case.validate_response(response, checks=REFUSED)
        if who == "none" and case.path not in OPEN and case.method.lower() in PATHS[case.path]:
            assert response.status_code in (400, 401, 405), response.text


def call(case: OpenApiCase, there: World, *, stream: bool, who: str = "operator") -> requests.Response:
    """The answer. Where a busy machine gives none in time (503), the same is asked again."""
    response = asked(case, there, stream=stream, who=who)
    for _ in range(20):
        if response.status_code != 503:
            break
        time.sleep(0.5)
        response = asked(case, there, stream=stream, who=who)
    return response


def asked(case: OpenApiCase, there: World, *, stream: bool, who: str) -> requests.Response:
    """The answer; of a feed its first frame."""
    sent = case.as_transport_kwargs(base_url=there.url)
    response = there.callers[who].request(**sent, stream=stream, timeout=30)
    if stream and response.status_code == 200:
        response._content = next(response.iter_content(None))
        response.close()
    return response


def accepted(case: OpenApiCase, response: requests.Response) -> None:
    """A valid call is done, unless the state or a rule does not allow it."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or response.status_code < 400:
        return
    code = response.json()["code"]
    if code.startswith("join_"):  # a host proves by its token and its keys that it may join
        return
    assert response.status_code in OF_THE_STATE, (response.status_code, response.text)
    assert code not in OF_THE_SHAPE, response.text


# ── one call for each bound ─────────────────────────────────────────────────────────────────────────────────────────


def labels() -> list[str]:
    paths = {path: methods for path, methods in json.loads(described())["paths"].items() if path not in LEADING}
    return sorted(f"{method.upper()} {path}" for path, methods in paths.items() for method in methods)


@pytest.fixture(scope="module")
def operations() -> dict[str, OpenApiOperation]:
    found: dict[str, OpenApiOperation] = {}
    for read in schema("coverage").get_all_operations():
        assert isinstance(read, Ok), read.err()
        found[read.ok().label] = read.ok()
    return found


@pytest.mark.parametrize("label", labels())
def test_bounds(label: str, there: World, operations: dict[str, OpenApiOperation]) -> None:
    """The cases are made here: `parametrize` makes all of them, which takes seconds, whenever tests are collected."""
    operation = operations[label]
    config = operation.schema.config.generation_for(operation=operation, phase="coverage")
    made = CoverageGenerator(
        operation=operation,
        generation_modes=config.modes,
        generation_config=config,
        auth_storage=None,
        override=Override(),
        feedback=NO_FEEDBACK,
    )
    tried = 0
    for case in made:
        tried_on(case, there)
        tried += 1
    assert tried >= 3, tried


def tried_on(case: OpenApiCase, there: World) -> None:
    there.put_in(case)
    response = call(case, there, stream=case.path.endswith("/feed"))
    case.validate_response(response, checks=CHECKS)
    accepted(case, response)
