"""A platform in miniature, on a real socket (`serving.py`): enough of the API to see how the CLI behaves towards one.

It judges calls by the API's description, bodies by the gateway's own models, and verbs by the rows of the domain. Each
answer is held against the description (`tests/description.py`), and `tests/gateway/test_fake.py` holds it to the
gateway. A VM's life goes one step on whenever somebody waits, so that nothing here depends on time.

What no gateway does is in `Faults` alone.
"""

import hashlib
import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from domain.vm.values import Phase
from domain.vm.verb import WAS_DELETED, AnyVerb, verb_named
from gateway.commands.actions import ACTIONS
from gateway.http import problems
from gateway.http.parameters import not_found
from gateway.http.problems import Problem, invalid_parameter
from tests import description

Document = dict[str, Any]
TIME = "2030-01-02T03:04:{:02d}.000000+00:00"
DEADLINE = "2030-01-02T04:00:00.000000+00:00"
#: The phase and the event that a verb ends with; any other makes the VM run.
ENDS = {
    "stop": ("stopped", "VmStopped"),
    "pause": ("paused", "VmPaused"),
    "suspend": ("suspended", "VmSuspended"),
    "resume": ("running", "VmResumed"),
    "delete": ("deleted", "VmDeleted"),
    "forget": ("deleted", "VmForgotten"),
}
#: A VM that was just asked for.
VM: Document = {
    **{"desired": "on", "ready": False, "running_spec": None, "pending_resize": False, "region": None, "tags": []},
    **{
        "labels": {},
        "protected": False,
        "restart_policy": "no",
        "restart_at": None,
        "restarts": 0,
        "flavor": None,
        "rescue": None,
    },
    **{"watchdog": "disabled", "ssh_keys": [], "has_user_data": False, "warnings": [], "boots": 0, "guest_boots": 0},
    **{"rebuilds": 0, "description": None, "created_by": "ada", "node": None, "mac": None, "addresses": []},
    **{"address_sources": [], "host_keys": [], "pending": None, "preparing": None, "failure": None, "forgotten": None},
    **{"considered": [], "created_at": TIME.format(0), "started_at": None, "ready_at": None, "first_ready_at": None},
    **{"updated_at": TIME.format(0), "version": 0, "position": 0, "image": "debian-12"},
    **{"vcpus": 1, "memory_mib": 512, "disk_gib": 4},
}
PROJECT = {"created_at": TIME.format(0), "updated_at": TIME.format(0), "version": 1, "position": 0, "tags": []} | {
    "description": None,
    "created_by": "ada",
    "ssh_keys": [],
    "members": [],
}
#: What any VM and node used lately: nothing is known of the first of four steps.
USAGE: Document = {
    **{"from": TIME.format(0), "to": TIME.format(8), "step_seconds": 2.0, "position": 0},
    "size": {"cpus": 2, "memory_bytes": 2**30, "disk_bytes": None},
    "points": [
        {
            **{"at": TIME.format(2 * number + 2), "cpu": cpu, "memory_bytes": memory, "disk_bytes": memory},
            **{"disk_read": memory, "disk_written": 0, "net_in": 1536, "net_out": None},
        }
        for number, (cpu, memory) in enumerate(((None, None), (0.0, 2**28), (1.0, 2**29), (2.0, 2**30)))
    ],
}
PREVIEW = "/v1/projects/{project}/vm-preview"
#: The parameters of which it knows what they mean.
KNOWN = {
    "wait",
    "name",
    "label",
    "phase",
    "tag",
    "node",
    "limit",
    "page_token",
    "at",
    "vm",
    "kind",
    "after",
    "from",
    "order",
    "since",
    "points",
}


@dataclass
class Faults:
    """What happens to a platform, or on the way to it.

    `next`: to the next requests, one each, before they are carried out (`500`, `503`, `drop`) or after (`drop-answer`).
    A feed ends behind the positions in `breaks`, and leaves out those in `skips`. A connection to it for which there is
    a `first` ends behind its first frame; then that is called.
    """

    next: deque[str] = field(default_factory=deque)
    breaks: list[int] = field(default_factory=list)
    skips: set[int] = field(default_factory=set)
    first: deque[Callable[[], object]] = field(default_factory=deque)


@dataclass(frozen=True)
class Answer:
    body: Document
    position: int
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Platform:
    """Its state, and what it has been asked: `requests` is (method, path, idempotency key, query) in their order."""

    #: whether its answers are held against the description
    described = True

    def __init__(self) -> None:
        self.url = ""
        self.token: str | None = None
        #: the issuer that it names for logins
        self.offer: Document | None = None
        #: what it calls its caller
        self.me = "ada"
        #: `Authorization` of each call
        self.shown: list[str | None] = []
        self.faults = Faults()
        self.requests: list[tuple[str, str, str | None, Document]] = []
        self.bodies: list[Document] = []
        #: what was asked that the API does not take, or answered that it cannot answer
        self.wrong: list[str] = []
        self.warnings: list[Document] = []
        self.events: list[Document] = []
        #: each VM as it was behind its events
        self.past: dict[int, Document] = {}
        self.vms: dict[str, Document] = {}
        self.operations: dict[str, Document] = {}
        self.projects: dict[str, Document] = {}
        self.remembered: dict[tuple[str, str, str], tuple[Document, str]] = {}
        self.fails_with: Document | None = None
        self.stuck = False
        self.guest: Document | None = None
        self.usage: Document = USAGE
        #: items on a page where nothing is said
        self.page_size = 100
        #: where each connection to a feed asked to go on
        self.resumed: list[str | None] = []
        self.add_project("default")

    def keys(self, method: str) -> list[str | None]:
        return [key for asked, _, key, _ in self.requests if asked == method]

    def add_project(self, name: str) -> None:
        self.projects[name] = {"id": name, "name": name, **PROJECT}

    def add_vm(self, name: str, phase: str = "running", **more: Any) -> Document:
        vm = {"id": str(uuid.uuid4()), "project": "default", "name": name, **VM, "phase": phase, **more}
        self.vms[vm["id"]] = vm
        self.record(vm, "VmRequested", name=name, fingerprint="f")
        return vm

    def record(self, vm: Document, kind: str, operation: str | None = None, **data: Any) -> int:
        """Append an event of a VM, chained as the real log does."""
        earlier = [e for e in self.events if e["subject"].endswith(vm["id"]) and "aggregateversion" in e]
        data |= {"operation": operation} if operation else {}
        event: Document = {"specversion": "1.0", "id": f"vm.{vm['id']}:{len(earlier) + 1}", "type": f"nebula.vm.{kind}"}
        event |= {"source": f"/projects/default/vms/{vm['id']}", "time": TIME.format(len(self.events) % 60)}
        event |= {"aggregateversion": len(earlier) + 1, "prevhash": earlier[-1]["digest"] if earlier else "0" * 64}
        event |= {"actor": "ada"}
        subject = f"nebula.events.default.vm.{vm['id']}"
        lines = [subject, *(f"ce-{name}: {value}" for name, value in sorted(event.items())), ""]
        body = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        event["digest"] = hashlib.sha256(("\n".join(lines) + "\n" + body).encode()).hexdigest()
        event |= {"position": len(self.events) + 1, "subject": subject}
        self.events.append(event | {"datacontenttype": "application/json", "data": data})
        vm |= {"position": event["position"], "version": len(earlier) + 1, "updated_at": event["time"]}
        self.past[event["position"]] = dict(vm)
        if operation:
            self.operations[operation]["position"] = event["position"]
            self.operations[operation]["events"].append({name: event[name] for name in ("position", "type", "time")})
        return int(event["position"])

    def end(self, op: Document, status: str, problem: Document | None = None) -> None:
        op |= {"status": status, "problem": problem, "ended_at": TIME.format(59)}

    def step(self) -> None:
        """Everything that is under way gets one step further."""
        for op in list(self.operations.values()):
            if op["status"] not in ("accepted", "running") or self.stuck:
                continue
            vm = self.vms[op["resource"]]
            op["status"] = "running"
            if self.fails_with:
                vm |= {"phase": "failed", "pending": None, "failure": {**self.fails_with, "at": TIME.format(59)}}
                self.end(op, "failed", why(**self.fails_with))
                self.record(vm, "VmFailed", op["id"])
            elif op["verb"] == "create" and vm["phase"] == "requested":
                vm |= {"phase": "scheduled", "preparing": "disk", "node": "host-1"}
                self.record(vm, "VmScheduled", op["id"], node="host-1")
            else:
                phase, event = ENDS.get(op["verb"], ("running", "VmStarted"))
                vm |= {"phase": phase, "pending": None, "preparing": None, "failure": None}
                self.record(vm, event, op["id"])
                self.end(op, "succeeded")

    def accept(self, verb: str, vm: Document, **said: Any) -> Document:
        """The operation of a verb on a VM that takes it, or Problem; and the VM."""
        rule = verb_named(verb)
        assert rule is not None
        if verb != "create":
            self.admit(rule, vm, force=bool(said.get("force")))
        op: Document = {"id": str(uuid.uuid4()), "verb": verb, "kind": "vm", "resource": vm["id"], "events": []}
        op |= {"project": vm["project"], "status": "accepted", "actor": "ada", "request_id": None, "ended_at": None}
        op |= {"accepted_at": TIME.format(0), "deadline": None, "position": vm["position"], "problem": None}
        self.operations[op["id"]] = op | {"progress": None, "warnings": self.warnings}
        if rule.lasting:
            vm["pending"] = {"operation": op["id"], "verb": verb, "since": TIME.format(0), "deadline": DEADLINE}
            self.operations[op["id"]]["deadline"] = DEADLINE
        self.record(vm, rule.event.__name__, op["id"], **said, fingerprint="f")
        if not rule.lasting:
            self.end(self.operations[op["id"]], "succeeded")
        return self.operations[op["id"]]

    def admit(self, rule: AnyVerb, vm: Document, *, force: bool) -> None:
        """As the domain judges it; what is overtaken is cancelled."""
        if vm["phase"] == "deleted":
            raise Problem(410, "vm_deleted", WAS_DELETED)
        if rule.always_accepted:
            return
        if (pending := vm["pending"]) is not None:
            if not rule.can_overtake(pending["verb"], force=force and vm["node"] is not None):
                raise Problem(409, "operation_pending", f"{pending['verb']} is under way; wait for it")
            detail = f"{rule.name} came between"
            self.end(self.operations[pending["operation"]], "cancelled", why("cancelled", detail))
            vm["pending"] = None
            return
        row = rule.forced if force and rule.forced is not None else rule.row
        if (why_not := row[Phase(vm["phase"])]) is not None:
            raise Problem(409, "wrong_phase", f"cannot {rule.name} a VM that is {vm['phase']}: {why_not}")

    def answer(self, method: str, path: str, query: Document, key: str | None, body: bytes) -> Answer:
        """What is answered to a call. Raises Problem."""
        found = description.route(path)
        if found is None:
            raise Problem(404, "no_such_route", "there is no call at this path; see /v1/openapi.json")
        template, ids = found
        methods = description.document()["paths"][template]
        if method.lower() not in methods:
            raise problems.method_not_allowed(sorted(each.upper() for each in methods))
        if method == "GET":
            return self.read(template, ids, path, query)
        said = self.judged(method, template, body)
        if template == PREVIEW:
            return self.preview(ids["project"], said)
        earlier = self.remembered.get((method, path, key)) if key else None
        if earlier is not None and earlier[0] != said:
            name = "Idempotency-Key"
            detail = f"this {name} was used before; use a new key"
            raise Problem(422, "idempotency_key_reused", detail, [(name, detail)])
        op_id = earlier[1] if earlier else self.command(method, template, ids, said)["id"]
        if key:
            self.remembered[method, path, key] = (said, op_id)
        if "wait" in query:
            self.step()
        op = self.operations[op_id]
        made = {"operation": dict(op), "vm": dict(self.vms[op["resource"]]), "position": op["position"]}
        over = "wait" in query and op["status"] not in ("accepted", "running")
        headers = {"Location": f"/v1/operations/{op_id}"} | ({"Idempotent-Replayed": "true"} if earlier else {})
        return Answer(made, op["position"], 200 if over else 202, headers)

    def preview(self, project: str, said: Document) -> Answer:
        """What a create would do: there is one node, with room."""
        self.project(project)
        size = {name: said.get(name, VM[name]) for name in ("vcpus", "memory_mib", "disk_gib")}
        considered = [{"node": "host-1", "reason": None, "more": 0}]
        found = {"node": "host-1", "considered": considered, "warnings": self.warnings, "size": size}
        return Answer({**found, "position": len(self.events)}, len(self.events))

    def check_positions(self, query: Document) -> None:
        """Raises Problem for a position that the log has not reached."""
        for name in {"min_position", "after", "at", "page_token"} & query.keys():
            number = query[name].partition("-")[0]
            if number.isdecimal() and int(number) > len(self.events):
                raise invalid_parameter(name, f"the log ends at position {len(self.events)}")

    def judged(self, method: str, template: str, body: bytes) -> Document:
        """A body that the gateway takes. Raises Problem."""
        create = next(action for action in ACTIONS if action.kind == "vm" and action.creates)
        for action in ACTIONS:
            if (action.method, action.path) == (method, template) or (template == PREVIEW and action is create):
                try:
                    action.body.model_validate_json(body or b"{}")
                except ValidationError as error:
                    raise problems.invalid_body(error) from error
        said: Document = json.loads(body or b"{}")
        return said

    def command(self, method: str, template: str, ids: Mapping[str, str], said: Document) -> Document:
        """The operation of a command. Raises Problem."""
        if template == "/v1/images":
            raise Problem(409, "image_exists", "there is such an image already; choose another id", [("id", "taken")])
        if not template.startswith("/v1/projects/{project}/vms"):
            raise self.unknown(f"{method} {template}")
        self.project(ids["project"])
        if template.endswith("/vms"):
            given = {name: value for name, value in said.items() if not name.startswith("user_data")}
            secret = {"has_user_data": len(given) < len(said)}
            vm_id = given.pop("id", None) or str(uuid.uuid4())
            vm = {**VM, **given, "id": vm_id, "project": ids["project"], "phase": "requested", **secret}
            self.vms[vm_id] = vm
            return self.accept("create", vm, name=vm["name"])
        vm = self.vm(ids["project"], ids["vm"])
        if method == "PATCH":
            vm |= said
            return self.accept("change", vm, **said)
        return self.accept("delete" if method == "DELETE" else template.rsplit("/", 1)[-1], vm, **said)

    def read(self, template: str, ids: Mapping[str, str], path: str, query: Document) -> Answer:
        """What a read answers. Raises Problem."""
        if strange := query.keys() - KNOWN - {"min_position"}:
            raise self.unknown(f"{template} with {', '.join(strange)}")
        match template.removeprefix("/v1/"):
            case "login":
                return Answer({"token_needed": self.token is not None, "oidc": self.offer}, len(self.events))
            case "me":
                me = {"principal": self.me, "roles": [], "read_only": False, "credential": None, "expires_at": None}
                return Answer({**me, "permissions": []}, len(self.events))
            case "projects":
                return self.page([*self.projects.values()], path, query)
            case "projects/{project}/vms" | "vms":
                if "project" in ids:
                    self.project(ids["project"])
                there = self.vms if "at" not in query else self.then(int(query["at"]))
                mine = [vm for vm in there.values() if vm["project"] == ids.get("project", vm["project"])]
                return self.page([vm for vm in mine if vm["phase"] != "deleted" and matches(vm, query)], path, query)
            case "projects/{project}/vms/{vm}":
                return self.one_vm(self.vm(ids["project"], ids["vm"]), query)
            case "projects/{project}/vms/{vm}/guest":
                self.vm(ids["project"], ids["vm"])
                if self.guest is None:
                    raise Problem(409, "guest_agent_missing", "no agent runs in the guest")
                return Answer(self.guest, len(self.events))
            case "projects/{project}/vms/{vm}/usage":
                self.vm(ids["project"], ids["vm"])
                return Answer(self.usage, len(self.events))
            case "nodes/{node}/usage":
                return Answer(self.usage, len(self.events))
            case "operations/{operation}":
                if "wait" in query:
                    self.step()
                if ids["operation"] not in self.operations:
                    raise not_found("operation", ids["operation"])
                op = self.operations[ids["operation"]]
                return Answer(op, len(self.events))
            case "events":
                self.greet(query)
                last = int(query.get("at", len(self.events)))
                mine = [
                    e for e in self.events[:last] if e["position"] > int(query.get("after", 0)) and concerns(e, query)
                ]
                said = [{**e, "words": e["type"], "why": None} for e in mine]  # no digest covers these
                return self.page(said[::-1] if query.get("order") == "desc" else said, path, query)
        raise self.unknown(f"GET {template}")

    def unknown(self, what: str) -> Problem:
        """Of what the API may have, and this has not: the test that asks for it has to be told."""
        self.wrong.append(f"tests/cli/fake.py does not know {what}")
        return Problem(503, "log_unavailable", what)

    def greet(self, query: Document) -> None:
        """Whoever waits for events sees guests that get ready."""
        for vm in self.vms.values():
            if "wait" in query and vm["phase"] == "running" and not vm["ready"] and not self.stuck:
                vm["ready"] = True
                self.record(vm, "VmGuestReady")

    def project(self, name: str) -> None:
        if name not in self.projects:
            raise not_found("project", name)

    def vm(self, project: str, vm_id: str) -> Document:
        vm = self.vms.get(vm_id.lower())
        if vm is None or vm["project"] != project:
            raise not_found("vm", vm_id)
        return vm

    def one_vm(self, vm: Document, query: Document) -> Answer:
        if "at" not in query:
            if vm["phase"] == "deleted":
                raise Problem(410, "vm_deleted", f"vm {vm['id']} was deleted; its earlier states can be read with ?at=")
            return Answer(vm, len(self.events))
        then = [past for position, past in self.past.items() if past["id"] == vm["id"] and position <= int(query["at"])]
        if not then:
            raise Problem(404, "vm_not_found", f"there was no VM {vm['id']} at that time", [("at", "too early")])
        return Answer(then[-1], then[-1]["position"])

    def then(self, at: int) -> dict[str, Document]:
        """The VMs as they were at a position, by their ids."""
        return {vm["id"]: vm for position, vm in sorted(self.past.items()) if position <= at}

    def page(self, items: list[Document], path: str, query: Document) -> Answer:
        asked = sorted((name, text) for name, text in query.items() if name not in ("page_token", "limit", "wait"))
        digest = hashlib.sha256(repr((path, asked)).encode()).hexdigest()[:16]
        start, _, mine = query.get("page_token", f"0-{digest}").partition("-")
        if mine != digest:
            raise invalid_parameter("page_token", "is of another list")
        end = int(start) + int(query.get("limit", self.page_size))
        token = f"{end}-{digest}" if len(items) > end else None
        reflected = int(query["at"]) if "at" in query and path.endswith("/vms") else len(self.events)
        body = {"items": items[int(start) : end], "next_page_token": token, "position": reflected}
        return Answer(body, reflected)

    def feed(self, after: int) -> Iterator[str]:
        """The events behind `after`; where its faults say so, it ends early, or leaves some out."""
        yield f": the log, in order\nid: {after}\n\n"
        if self.faults.first:
            self.faults.first.popleft()()
            return
        prev = after
        for event in self.events[after:]:
            if event["position"] not in self.faults.skips:
                item = {**event, "prev": prev}
                yield f"id: {event['position']}\nevent: {event['type']}\ndata: {json.dumps(item)}\n\n: still here\n"
            prev = event["position"]
            if self.faults.breaks and event["position"] == self.faults.breaks[0]:
                self.faults.breaks.pop(0)
                return


def why(code: str, detail: str) -> Document:
    """Why an operation did not succeed."""
    return {"type": f"urn:nebula:problem:{code}", "title": code.replace("_", " "), "code": code, "detail": detail}


def matches(vm: Document, query: Document) -> bool:
    key, given, value = query.get("label", "").partition("=")
    labelled = not key or (key in vm["labels"] and (not given or vm["labels"][key] == value))
    tagged = query.get("tag") is None or query["tag"] in vm["tags"]
    return labelled and tagged and all(query.get(name) in (None, vm[name]) for name in ("name", "phase", "node"))


def concerns(event: Document, query: Document) -> bool:
    *_, kind, id_ = event["subject"].split(".")
    return query.get("vm") in (None, id_) and query.get("kind") in (None, kind)
