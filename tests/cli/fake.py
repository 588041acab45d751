"""A platform in miniature, on a real socket: enough of docs/http-api.md to see how the CLI behaves towards one.

A VM's life goes one step on whenever somebody waits, so that nothing here depends on time. `faults` are what happens
to the next requests, one each, before they are carried out (`500`, `503`, `drop`) or after (`drop-answer`).
"""

import hashlib
import json
import re
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Document = dict[str, Any]
TIME = "2030-01-02T03:04:{:02d}.000000+00:00"


#: The phase and the event that a verb ends with; any other makes the VM run.
ENDS = {
    "stop": ("stopped", "VmStopped"),
    "pause": ("paused", "VmPaused"),
    "suspend": ("suspended", "VmSuspended"),
    "resume": ("running", "VmResumed"),
    "delete": ("deleted", "VmDeleted"),
    "forget": ("deleted", "VmDeleted"),
}


class Problem(Exception):
    def __init__(self, status: int, code: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.document = {"status": status, "code": code, "detail": detail, **more}


class Platform:
    """Its state, and what it has been asked: `requests` is (method, path, idempotency key, query) in their order."""

    def __init__(self) -> None:
        self.url = ""
        self.token: str | None = None
        self.faults: deque[str] = deque()
        self.requests: list[tuple[str, str, str | None, Document]] = []
        self.bodies: list[Document] = []
        self.warnings: list[Document] = []
        self.events: list[Document] = []
        self.phases: dict[int, str] = {}
        self.vms: dict[str, Document] = {}
        self.operations: dict[str, Document] = {}
        self.projects = {"default": {"id": "default", "name": "default", "tags": [], "created_at": TIME.format(0)}}
        self.remembered: dict[str, Document] = {}
        self.fails_with: Document | None = None
        self.stuck = False
        self.guest: Document | None = None
        self.feed_breaks: list[int] = []
        self.feed_skips: set[int] = set()
        #: where each connection to a feed asked to go on
        self.resumed: list[str | None] = []
        self.feed_first: deque[Callable[[], object]] = deque()

    def keys(self, method: str) -> list[str | None]:
        return [key for asked, _, key, _ in self.requests if asked == method]

    def add_vm(self, name: str, phase: str = "running", **more: Any) -> Document:
        vm_id = str(uuid.uuid4())
        vm = {"id": vm_id, "project": "default", "name": name, "phase": phase, "ready": False, "image": "debian-12"}
        vm |= {"vcpus": 1, "memory_mib": 512, "disk_gib": 4, "tags": [], "addresses": [], "node": None, "pending": None}
        self.vms[vm_id] = vm | {"created_at": TIME.format(0), "position": len(self.events), **more}
        return self.vms[vm_id]

    def record(self, vm: Document, kind: str, **data: Any) -> int:
        """Append an event of a VM, chained as the real log does."""
        earlier = [e for e in self.events if e["subject"].endswith(vm["id"])]
        event: Document = {"specversion": "1.0", "id": f"vm.{vm['id']}:{len(earlier) + 1}", "type": f"nebula.vm.{kind}"}
        event |= {"source": f"/projects/default/vms/{vm['id']}", "time": TIME.format(len(self.events)), "actor": "ada"}
        event |= {"aggregateversion": len(earlier) + 1, "prevhash": earlier[-1]["digest"] if earlier else "0" * 64}
        subject = f"nebula.events.default.vm.{vm['id']}"
        lines = [subject, *(f"ce-{name}: {value}" for name, value in sorted(event.items())), ""]
        body = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        event["digest"] = hashlib.sha256(("\n".join(lines) + "\n" + body).encode()).hexdigest()
        event |= {"position": len(self.events) + 1, "subject": subject, "data": data}
        self.phases[event["position"]] = vm["phase"]
        self.events.append(event)
        vm["position"] = event["position"]
        return int(event["position"])

    def step(self) -> None:
        """Everything that is under way gets one step further."""
        for op in self.operations.values():
            if op["status"] != "running" or self.stuck:
                continue
            vm = self.vms[op["resource"]]
            if self.fails_with:
                vm |= {"phase": "failed", "pending": None, "failure": self.fails_with}
                op |= {"status": "failed", "problem": self.fails_with, "position": self.record(vm, "VmFailed")}
            elif op["verb"] == "create" and vm["phase"] == "requested":
                vm |= {"phase": "scheduled", "preparing": "disk"}
                self.record(vm, "VmScheduled", node="host-1")
            else:
                phase, event = ENDS.get(op["verb"], ("running", "VmStarted"))
                vm |= {"phase": phase, "pending": None, "preparing": None}
                position = self.record(vm, event)
                op |= {"status": "succeeded", "position": position}

    def accept(self, verb: str, vm: Document) -> Document:
        op: Document = {"id": str(uuid.uuid4()), "verb": verb, "kind": "vm", "resource": vm["id"], "project": "default"}
        op["warnings"] = self.warnings
        self.operations[op["id"]] = op | {"status": "running", "problem": None, "position": vm["position"]}
        vm["pending"] = {"operation": op["id"], "verb": verb}
        return {"operation": dict(self.operations[op["id"]]), "vm": dict(vm), "position": vm["position"]}

    def answer(self, method: str, target: str, query: Document, key: str | None, body: Document) -> Document:
        if method != "GET" and key in self.remembered:
            return self.remembered[key]
        made = self.handle(method, target.removeprefix("/v1"), query, body)
        if method != "GET" and key:
            self.remembered[key] = made
        return made

    def handle(self, method: str, target: str, query: Document, body: Document) -> Document:
        if "wait" in query:
            self.step()
        match method, *target.strip("/").split("/"):
            case "GET", "projects":
                return {"items": list(self.projects.values()), "next_page_token": None}
            case "GET", "projects", _, "vms":
                return self.page([vm for vm in self.vms.values() if query.get("name") in (None, vm["name"])], query)
            case "POST", "projects", _, "vms":
                if not re.fullmatch(r"[a-z0-9-]+", body["name"]):
                    fields = [{"field": "name", "detail": "lower-case letters, digits and - only"}]
                    raise Problem(422, "invalid", "the request is not valid", errors=fields)
                vm = self.add_vm(
                    body["name"], "requested", **{k: v for k, v in body.items() if k not in ("id", "name")}
                )
                self.record(vm, "VmRequested", name=vm["name"])
                return self.accept("create", vm)
            case "GET", "projects", _, "vms", vm_id:
                vm = self.vm(vm_id)
                if "at" in query:
                    return vm | {"phase": self.phases[int(query["at"])]}
                return vm
            case "GET", "projects", _, "vms", vm_id, "guest":
                if self.guest is None:
                    raise Problem(409, "guest_agent_missing", "no agent answers in the guest")
                return self.guest
            case "DELETE", "projects", _, "vms", vm_id:
                return self.accept("delete", self.vm(vm_id))
            case "PATCH", "projects", _, "vms", vm_id:
                vm = self.vm(vm_id)
                answer = self.accept("change", vm)
                vm |= {**body, "pending": None}
                self.operations[answer["operation"]["id"]] |= {
                    "status": "succeeded",
                    "position": self.record(vm, "VmChanged"),
                }
                return answer
            case "POST", "projects", _, "vms", vm_id, verb:
                return self.accept(verb, self.vm(vm_id))
            case "GET", "operations", op_id:
                return dict(self.operations[op_id])
            case "GET", "events":
                for vm in self.vms.values():
                    if "wait" in query and vm["phase"] == "running" and not vm["ready"] and not self.stuck:
                        vm["ready"] = True
                        self.record(vm, "VmGuestReady")
                after = int(query.get("after", 0))
                found = [e for e in self.events if e["position"] > after]
                mine = [e for e in found if query.get("vm") is None or e["subject"].endswith(query["vm"])]
                return {"items": mine[: int(query.get("limit", 100))], "next_page_token": None}
        raise Problem(404, "not_found", f"there is no {target}")

    def vm(self, vm_id: str) -> Document:
        if vm_id not in self.vms:
            raise Problem(404, "vm_not_found", f"there is no VM {vm_id} in this project")
        return self.vms[vm_id]

    def page(self, items: list[Document], query: Document) -> Document:
        """Two at a time, so that lists have pages."""
        start = int(query.get("page_token", 0))
        more = str(start + 2) if len(items) > start + 2 else None
        return {"items": items[start : start + 2], "next_page_token": more}

    def feed(self, after: int) -> Iterator[str]:
        """The events behind `after`; ends early where `feed_breaks` says so, and forgets `feed_skips`.

        A connection for which there is a `feed_first` ends behind its first frame, which only says where to resume;
        then that is called.
        """
        yield f": the log, in order\nid: {after}\n\n"
        if self.feed_first:
            self.feed_first.popleft()()
            return
        prev = after
        for event in self.events[after:]:
            if event["position"] not in self.feed_skips:
                item = {**event, "prev": prev}
                yield f"id: {event['position']}\nevent: {event['type']}\ndata: {json.dumps(item)}\n\n: still here\n"
            prev = event["position"]
            if self.feed_breaks and event["position"] == self.feed_breaks[0]:
                self.feed_breaks.pop(0)
                return


@contextmanager
def serving(platform: Platform) -> Iterator[Platform]:
    """Listen on a free port until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            key = self.headers["Idempotency-Key"]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
            platform.requests.append((self.command, parts.path, key, query))
            if self.command == "POST":
                platform.bodies.append(body)
            fault = platform.faults.popleft() if platform.faults else ""
            if fault == "drop":
                return
            try:
                if fault == "503":
                    raise Problem(503, "unavailable", "nobody decides at the moment")
                if fault == "500":
                    raise Problem(500, "internal_error", "it was being killed")
                if platform.token and self.headers["Authorization"] != f"Bearer {platform.token}":
                    raise Problem(401, "unauthorized", "this token is not known")
                if parts.path.endswith("/feed"):
                    platform.resumed.append(self.headers["Last-Event-ID"])
                    begin = len(platform.events) if query.get("from") == "now" else query.get("after", 0)
                    self.stream(int(self.headers["Last-Event-ID"] or begin))
                    return
                answer, status = platform.answer(self.command, parts.path, query, key, body), 200
            except Problem as problem:
                answer, status = problem.document, problem.status
            if fault != "drop-answer":
                self.reply(status, json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = do_DELETE = do

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stream(self, after: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for chunk in platform.feed(after):
                self.wfile.write(chunk.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    platform.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
