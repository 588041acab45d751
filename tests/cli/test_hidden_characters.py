"""No text of others acts on the terminal: each command, with hidden characters in all that it is answered."""

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.client import output, tunnel, waiting
from cli.client.client import Client, Document
from cli.client.errors import CliError
from cli.client.session import note
from cli.commands import console, log, views
from cli.main import app
from eventstore.integrity.report import Finding, Report
from projections.compare import Difference, TableDifference
from projections.rebuild import Comparison
from runtime.text.plain import ESCAPED
from tests.cli.conftest import Nebula
from tests.cli.fake import Answer, Platform
from tests.cli.serving import serving

#: Titles, colours, C1, DEL, line ends, overrides and isolates of bidi, invisible ones, tags, a lone surrogate. What
#: stands behind the line end would be a line of its own.
HOSTILE = "\x1b]0;owned\x07\x1b[8m\x9b31m\x85\x7f\x00\r\u202ecod\u2066\u200b\ufeff\u2028\U000e0041\ud800\nFORGED"
VM, OP = "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-000000000001"
TIME = "2030-01-02T03:04:05.000000+00:00"
SIZE = {"vcpus": 1, "memory_mib": 1, "disk_gib": 1}
#: What a sound platform says in these fields, so that the command comes to its end.
SOUND = {
    "id",
    "subject",
    "created_at",
    "expires_at",
    "accepted_at",
    "last_seen",
    "time",
    "status",
    "next_page_token",
    "aggregateversion",
    "resource",
}

#: What is asked and answered anew for every VM, tag and image: as harmless of one of them as of all.
SOME = ("events", "feed", "vm create", "vm show", "vm wait", "image list", "node show", "operation wait", "replay vm")
#: The arguments of each command. What has tests of its own, or prints nothing that others have said, is in OTHERS.
COMMANDS: dict[str, tuple[str, ...]] = {
    "events": (),
    "event": ("1",),
    "marks": (),
    "diff": ("--from", "1"),
    "refusals": (),
    "whoami": (),
    "feed": ("--limit", "2"),
    "vm create": ("x", "--image", "i", "--timeout", "0.01"),
    "vm list": (),
    "vm show": (VM,),
    **{f"vm {verb}": (VM,) for verb in ("start", "stop", "restart", "pause", "suspend", "resume", "rebuild")},
    **{
        f"vm {verb}": (VM,)
        for verb in (
            "retry",
            "abandon",
            "rescue",
            "unrescue",
            "delete",
            "tag",
            "label",
            "protect",
            "unprotect",
            "guest",
            "verbs",
            "usage",
        )
    },
    "vm resize": (VM, "--vcpus", "2"),
    "vm forget": (VM, "--reason", "x"),
    "vm rename": (VM, "y"),
    "vm describe": (VM, "y"),
    "vm restart-policy": (VM, "always"),
    "vm watchdog": (VM, "reset"),
    "vm wait": (VM, "--timeout", "0.01"),
    "project create": ("x",),
    "project list": (),
    "project show": ("x",),
    "project usage": ("x",),
    "project rename": ("x", "y"),
    "project describe": ("x", "y"),
    "project tag": ("x", "y"),
    "project ssh-keys": ("x",),
    "project delete": ("x",),
    "project members": ("x",),
    "project bind": ("x", "user:y", "member"),
    "project unbind": ("x", "y"),
    **{
        f"{kind} {verb}": ("x", *more)
        for kind in ("user", "service-account")
        for verb, more in {
            "create": (),
            "show": (),
            "rename": ("y",),
            "disable": (),
            "enable": (),
            "bind": ("operator",),
            "unbind": ("auditor",),
            "delete": (),
        }.items()
    },
    "user list": (),
    "service-account list": (),
    "token issue": ("x",),
    "token list": (),
    "token show": ("x",),
    "token revoke": ("x",),
    "tag create": ("x",),
    "tag list": (),
    "tag rename": ("x", "y"),
    "tag delete": ("x",),
    "flavor create": ("x", "--vcpus", "1", "--memory", "512", "--disk", "4"),
    "flavor list": (),
    "flavor show": ("x",),
    "flavor change": ("x", "--name", "y"),
    "flavor deprecate": ("x",),
    "flavor restore": ("x",),
    "flavor delete": ("x",),
    "image register": ("http://h/i.qcow2",),
    "image import": ("x", "--from", "http://h/i.qcow2"),
    "image list": (),
    "image show": ("x",),
    "image delete": ("x",),
    "node list": (),
    "node show": ("x",),
    "node cordon": ("x",),
    "node retire": ("x",),
    "node uncordon": ("x",),
    "node usage": ("x",),
    "node revoke": ("x",),
    "node enrollments": (),
    "node set-seed-url": ("x", "http://h/"),
    "operation list": (),
    "operation show": (OP,),
    "operation wait": (OP,),
    "replay vm": (VM,),
    "status": (),
    "parked list": (),
    "parked show": ("log", "1"),
    "parked retry": ("log", "1"),
    "parked drop": ("log", "1", "--reason", "x"),
}
OTHERS = {
    *("up", "demo", "gateway", "handlers", "projections", "guest-data", "node", "version", "schemas"),
    *("export", "import", "rebuild"),
    *(
        "verify log",
        "verify file",
        "verify views",
        "vault reveal",
        "vault rotate",
        "keys list",
        "keys rotate",
        "keys retire",
        "keys begin",
        "keys node",
        "keys rotate-nodes",
        "bus init",
        "bus serve",
        "bus adopt",
        "bus check",
        "bus run",
        "image build",
    ),
    *("vm console", "vm console-log", "vm vnc"),
    *("login", "logout", "context list", "context use", "context remove"),
    "node join",
    "node token",  # it prints what it has made itself
}


def commands(group: Any, name: str = "") -> Iterator[str]:
    for word, found in group.commands.items():
        whole = f"{name} {word}".strip()
        if hasattr(found, "commands"):
            yield from commands(found, whole)
        if getattr(found, "invoke_without_command", True) and (not hasattr(found, "commands") or whole == "node"):
            yield whole


def test_every_command_is_looked_at() -> None:
    assert set(commands(typer.main.get_command(app))) == set(COMMANDS) | OTHERS


def vm() -> Document:
    words = {"name": "n", "node": "n", "image": "i", "region": "r", "project": "p", "preparing": "disk"}
    failure = {"code": "c", "detail": "d", "title": "t"}
    considered = [{"node": "n", "reason": "full"}, {"node": "m", "reason": "far", "more": 2}]
    return {
        "id": VM,
        "phase": "unschedulable",
        **words,
        **SIZE,
        "ready": False,
        "pending": {"verb": "start", "operation": OP},
        "addresses": ["a"],
        "tags": ["t"],
        "labels": {"k": "v"},
        "failure": failure,
        "warnings": [{"code": "c", "detail": "d"}],
        "considered": considered,
        "facts": {"kernel": "k", "deeper": {"x": ["y"]}},
        "created_at": TIME,
        "position": 1,
    }


def operation(kind: str, status: str) -> Document:
    problem = {"code": "c", "detail": "d", "title": "t", "errors": [{"field": "f", "detail": "d"}]}
    words = {"verb": "create", "kind": kind, "project": "p", "actor": "a"}
    warned = {"warnings": [{"code": "c", "detail": "d"}]}
    return {"id": OP, **words, "resource": VM, "status": status, "accepted_at": TIME, "position": 1} | (
        {"problem": problem if status != "succeeded" else None} | warned
    )


def event(position: int, **more: Any) -> Document:
    words = {"type": "nebula.vm.VmStarted", "actor": "a", "source": "s", "id": "i", "credential": "c"}
    data = {"name": "n", "detail": "d", "addresses": ["a"], "host_keys": [{"type": "t"}], "considered": []}
    proof = {"aggregateversion": position, "prevhash": "0" * 64, "digest": "1" * 64}
    return {"position": position, "subject": f"nebula.events.p.vm.{VM}", **words, "time": TIME, **proof} | (
        {"data": {**data, "fingerprint": "f"}, "prev": position - 1, **more}
    )


THINGS: dict[str, Callable[[], Document]] = {
    "vms": vm,
    "projects": lambda: {
        **{"id": "p", "name": "n", "tags": ["t"], "ssh_keys": ["k"], "created_at": TIME},
        "members": [{"principal": "p", "role": "r"}],
    },
    "users": lambda: {"id": "u", "name": "n", "roles": ["r"], "disabled": True, "created_at": TIME},
    "service-accounts": lambda: {"id": "s", "name": "n", "roles": ["r"], "disabled": True, "created_at": TIME},
    "tokens": lambda: {
        **dict.fromkeys(("id", "name", "principal", "project", "role"), "x"),
        **{"read_only": True, "expires_at": TIME, "created_at": TIME},
    },
    "tags": lambda: {"id": "t", "name": "n", "created_at": TIME},
    "flavors": lambda: {
        **{"id": "f", "name": "n", **SIZE, "project": "p", "labels": {"k": "v"}, "description": "d"},
        **{"deprecated": True, "created_at": TIME, "updated_at": TIME},
    },
    "images": lambda: {
        **dict.fromkeys(("id", "name", "phase", "distribution", "release", "architecture", "source"), "x"),
        **dict.fromkeys(("project", "format", "firmware", "description", "sha256"), "x"),
        "failure": {"code": "c", "detail": "d"},
        "created_at": TIME,
    },
    "enrollments": lambda: {
        **dict.fromkeys(("id", "status", "public_key", "fingerprint"), "x"),
        **dict.fromkeys(("joined_at", "token_expires_at", "created_at"), TIME),
    },
    "nodes": lambda: {
        **dict.fromkeys(("id", "region", "virt_type", "version", "seed_url"), "x"),
        "status": "ready",
        "reserved": SIZE,
        "capacity": SIZE,
        "facts": [{"name": "x", "value": "y"}],
        "last_seen": TIME,
    },
    "parked": lambda: dict.fromkeys(("source", "key", "status", "subject", "error", "body"), "x") | {"time": TIME},
}
PROCESS = {"process": {"id": "i", "host": "h", "pid": 1}, "alive": True}
TIMES = dict.fromkeys(("last_seen", "last_run", "last_success", "failing_since"), TIME)
STATUS = {
    "position": 1,
    "roles": [{**PROCESS, **TIMES, "role": "r", "position": 1, "lag": 0, "last_error": "e"}],
    "managers": [{**PROCESS, **TIMES, "name": "n", "last_error": "e"}],
    "leases": [{**PROCESS, "name": "n"}],
    "nodes": [{**TIMES, "node": "n", "alive": False, "state": "s", "clock_warning": "w", "malformed_documents": 1}],
    "parked": {"open": 1, "total": 1, "more": 0},
}
REFUSAL = ("code", "address", "credential", "actor", "method", "path", "request_id")
ME = {"principal": "p", "roles": [{"role": "r", "project": "p"}], "read_only": False, "credential": "c"}
USAGE = {
    **{"from": TIME, "to": TIME, "step_seconds": 1.0, "size": dict.fromkeys(("cpus", "memory_bytes", "disk_bytes"), 1)},
    "points": [
        {"at": TIME}
        | dict.fromkeys(("cpu", "memory_bytes", "disk_bytes", "disk_read", "disk_written", "net_in", "net_out"), 1)
    ],
}
GUEST = {
    "hostname": "h",
    "os": {"name": "n", "kernel_release": "k", "machine": "m"},
    "timezone": {"name": "z"},
    "interfaces": [{"name": "n", "mac": "m", "addresses": [{"address": "a", "prefix": 4}]}],
    "filesystems": [{"mountpoint": "m", "device": "d", "type": "t", "total_bytes": 9, "used_bytes": 1}],
    "more_interfaces": 0,
    "more_filesystems": 0,
}


CHAIN = {
    **{"valid": False, "fault": {"code": "c", "reason": "r"}, "mac": "m", "linked": False, "confirmed": False},
    **{"previous": {"position": 1, "digest": "d"}, "following": {"position": 2, "digest": "d"}},
    "checkpoint": {"position": "p", "digest": "d", "time": TIME, "key": "k", "signed": None, "matches": None},
}


class Hostile(Platform):
    """Answers every call with what belongs there, poisoned; `refuses` with a problem instead. No gateway does so."""

    described = False
    refuses = 0
    ends = "succeeded"
    sound = frozenset(SOUND)

    def answer(self, method: str, target: str, query: Document, key: str | None, body: bytes) -> Answer:
        if self.refuses:
            errors = [{"field": "f", "detail": "d"}]
            document = poisoned({"code": "c", "title": "t", "detail": "d", "errors": errors}, frozenset())
            return Answer(document, 1, self.refuses, {"Retry-After": "0"})
        found = self._found(method, target.removeprefix("/v1/").split("/"), query)
        poison: Document = poisoned(found, self.sound)
        if "vm" in query:  # whose digests are computed: a lone surrogate has none
            poison = json.loads(json.dumps(poison).replace("\\ud800", ""))
        return Answer(poison, 1)

    def _found(self, method: str, words: list[str], query: Document) -> Document:
        words = words[2:] if words[0] == "projects" and len(words) > 2 else words
        match words:
            case ["operations"]:
                return self._page(operation("vm", "failed"))
            case ["operations", _]:
                return operation("vm", self.ends)
            case ["events"]:
                strays = [] if "vm" in query else [event(3, subject=f"x{HOSTILE}")]
                return self._page(event(1), event(2, data=None, type=""), *strays)
            case ["events", _]:
                return {**event(1), "words": "w", "why": "y", "chain": CHAIN}
            case ["diff"]:
                said = {"kind": "k", "id": "i", "project": "p", "name": "n", "what": "changed", "words": ["w"]}
                changes = [{"field": "f", "before": "b", "after": "a", "words": "w"}]
                happened = {"position": 1, "time": TIME, "type": "t", "actor": "a", "words": "w", "why": "y"}
                return self._page({**said, "changes": changes, "events": [happened], "more_events": 1})
            case ["marks"]:
                return {"items": [{"from": "1", "to": "x", "events": "1", "failures": "f", "first": 1, "time": TIME}]}
            case ["vms", _, "verbs"]:
                judged = {"accepted": False, "code": "c", "why": "w"}
                return {"items": [{"verb": "v", "summary": "s", **judged, "forced": judged}]}
            case ["vms", _, "guest"]:
                return GUEST
            case ["vms" | "nodes", _, "usage"]:
                return USAGE
            case ["status"]:
                return STATUS
            case ["refusals"]:
                return self._page({**dict.fromkeys(REFUSAL, "x"), "at": TIME, "status": 401})
            case ["me"]:
                return {**ME, "expires_at": TIME}
            case ["usage"]:
                return {"project": "p", "in_use": {"vms": 1, **SIZE}, "promised": {"vms": 1, **SIZE}}
            case ["parked", _, _, *_]:
                return THINGS["parked"]()
            case ["bind" | "unbind"]:
                return {"operation": operation("project", self.ends), "project": THINGS["projects"](), "position": 1}
            case [kind] if method == "GET":
                return self._page(THINGS[kind]())
            case [kind, *_] if method == "GET":
                return THINGS[kind]()
            case [kind, *_]:
                name = kind.removesuffix("s").replace("-", "_")
                return {"operation": operation(name, self.ends), name: THINGS[kind](), "position": 1}
        raise AssertionError(words)

    def _page(self, *items: Document) -> Document:
        return {"items": list(items), "next_page_token": None}

    def feed(self, after: int) -> Iterator[str]:
        for position in (1, 2):
            yield f"id: {position}\ndata: {json.dumps(poisoned(event(position), self.sound))}\n\n"


def poisoned(value: Any, sound: frozenset[str], name: str = "") -> Any:
    """The same document; whatever is text in it, names of fields among them, carries what is hostile."""
    match value:
        case str():
            return value if name in sound else value + HOSTILE
        case list():
            return [poisoned(each, sound, name) for each in value]
        case dict():
            more = {f"more{HOSTILE}": HOSTILE} if sound else {}
            return {key: poisoned(each, sound, key) for key, each in value.items()} | more
        case _:
            return value


#: Made once: it takes longer than what it does here.
APP = typer.main.get_command(app)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    monkeypatch.setattr("cli.main.app", APP)
    with serving(Hostile()) as running:
        assert isinstance(running, Hostile)
        yield running


def harmless(text: str) -> None:
    """Nothing that a terminal obeys or hides, and no line that somebody else has written."""
    assert not {hex(ord(char)) for char in text if unicodedata.category(char) in ESCAPED and char != "\n"}
    assert not [line for line in text.splitlines() if line.startswith("FORGED")]


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_answered(name: str, nebula: Nebula, platform: Hostile) -> None:
    arguments = (*name.split(), *COMMANDS[name])
    said = ""
    for form, platform.ends in (("table", "succeeded"), ("json", "failed")):
        ran = nebula(*arguments, "--output", form)
        harmless(ran.out)
        harmless(ran.err)
        said += ran.out + ran.err
    assert "owned" in said, "it was shown, escaped"


@pytest.mark.parametrize("name", SOME)
def test_what_makes_no_sense(name: str, nebula: Nebula, platform: Hostile) -> None:
    """Times, states and positions that are none: what is said of them is as harmless."""
    platform.sound = frozenset({"next_page_token"})
    ran = nebula(*name.split(), *COMMANDS[name])
    harmless(ran.out)
    harmless(ran.err)


@pytest.mark.parametrize("status", [409, 503])
@pytest.mark.parametrize("name", ["vm list", "vm create"])
def test_what_is_refused(name: str, status: int, nebula: Nebula, platform: Hostile) -> None:
    platform.refuses = status
    ran = nebula(*name.split(), *COMMANDS[name])
    assert ran.status
    harmless(ran.out)
    harmless(ran.err)


def test_several_vms_of_one_name(nebula: Nebula, platform: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    named = [poisoned(vm(), frozenset()) | {"name": "web"} for _ in range(2)]
    monkeypatch.setattr(platform, "answer", lambda *_: Answer({"items": named, "next_page_token": None}, 1))
    for name in ("web", f"none{HOSTILE.replace(chr(0), '').replace(chr(0xD800), '')}"):
        ran = nebula("vm", "show", name)
        assert ran.status
        harmless(ran.err)
    assert len(platform.wrong) == 1, "a VM cannot have the second name; it is asked for all the same"
    platform.wrong.clear()


def test_findings_of_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Types, subjects and keys are whatever somebody has stored."""
    report = Report(f"file{HOSTILE}", findings=[Finding("shape", 1, f"no event{HOSTILE}", f"subject{HOSTILE}")])
    for json_ in (False, True):
        with pytest.raises(CliError):
            log._print(report, json_, signatures=True, against=Path(f"x{HOSTILE}"))
    differs = TableDifference(f"t{HOSTILE}", 1, [Difference({"id": HOSTILE}, "differs", (HOSTILE,))], (HOSTILE,))
    for line in views.lines(Comparison(position=1, rows=1, tables=(differs,))):
        output.line(line)
    harmless(capsys.readouterr().out)


def test_progress_and_farewells(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting.Progress(f"vm {HOSTILE}") as progress:
        progress.show(f"running {HOSTILE}")
    harmless(capsys.readouterr().err)

    class Socket:
        close_code, close_reason = 1000, f"taken over{HOSTILE}"

    note(tunnel.close_reason(Socket()))
    harmless(capsys.readouterr().err)
    problem = json.dumps(poisoned({"code": "c", "detail": "d"}, frozenset())).encode()
    for status in (409, 503):
        harmless(str(tunnel._refused(Client("http://h", None, note), status, problem)))


def test_what_a_guest_wrote_to_its_console(capsysbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal: text and its colours, and what comes after it is neither coloured nor hidden."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with console.Printer() as show:
        show(f"ok \x1b[32mgreen {HOSTILE}".replace("\ud800", "").encode())
    shown = capsysbinary.readouterr().out.decode()
    assert shown.startswith("ok \x1b[32mgreen ")
    assert shown.endswith("\x1b[0m")
    for colour in ("32", "8", "0"):
        shown = shown.replace(f"\x1b[{colour}m", "")
    harmless(shown.replace("\r", "").replace("\nFORGED", ""))
