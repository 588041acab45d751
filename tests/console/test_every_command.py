"""Whatever a command of `nebula` can do, a page can: each command has its module here, or a reason why it has none."""

import re
from collections.abc import Iterator

import typer.main

from cli.main import app
from gateway.commands.actions import ACTIONS
from gateway.console.files import WEB
from projections.vms import VmView

#: Each group of commands: the modules of its pages.
PAGES = {
    "": ("pages/log.js", "pages/diff.js", "pages/event.js", "pages/status.js", "pages/refusals.js", "pages/tokens.js"),
    "flavor": ("pages/flavors.js", "pages/flavor.js"),
    "image": ("pages/images.js", "pages/image.js"),
    "node": ("pages/nodes.js", "pages/node.js", "pages/node-join.js"),
    "operation": ("pages/operations.js", "pages/operation.js"),
    "parked": ("pages/parked.js", "pages/parked-one.js"),
    "project": ("pages/projects.js", "pages/project.js", "pages/project-actions.js"),
    "service-account": ("pages/service-accounts.js", "pages/accounts.js", "pages/account.js"),
    "tag": ("pages/tags.js",),
    "token": ("pages/tokens.js", "pages/token-actions.js"),
    "user": ("pages/users.js", "pages/accounts.js", "pages/account.js"),
    "vm": (
        *("pages/vms.js", "pages/vm.js", "pages/vm-create.js", "pages/vm-do.js", "pages/vm-actions.js"),
        *("pages/vm-forms.js", "pages/vm-power.js", "pages/vm-rebuild.js", "pages/vm-tabs.js", "pages/vm-console.js"),
        *("pages/vm-display.js", "pages/vm-log.js", "pages/vm-guest.js", "pages/vm-usage.js"),
    ),
}
#: What the pages have of a command, if it is not its own word.
SIGNS = {
    "diff": '"/v1/diff"',
    "event": "/v1/events/${",
    "events": '"/v1/events"',
    "refusals": '"/v1/refusals"',
    "status": '"/v1/status"',
    "flavor change": '"PATCH"',
    "image import": '"/v1/images"',
    "image register": '"/v1/images"',
    "parked drop": "/drop`",
    "parked retry": "/retry`",
    "token revoke": "/v1/tokens/${",
    "token show": '"/v1/tokens"',  # the list has all of it
    "node enrollments": '"/v1/enrollments"',
    "node revoke": "/revoke`",
    "node set-seed-url": "seed_url",
    "node token": "/issue`",
    "operation wait": "nb-progress",
    "project bind": "/bind`",
    "project describe": "description",
    "project rename": '"name"',
    "project ssh-keys": "ssh_keys",
    "project tag": '"tags"',
    "project unbind": "/unbind`",
    "project usage": "/usage`",
    "token issue": '"/v1/tokens"',
    "vm console": "/console`",
    "vm console-log": "/console-log`",
    "vm create": '"POST"',
    "vm guest": "/guest`",
    "vm usage": "/usage`",
    "vm verbs": "/verbs`",
    "vm vnc": "/vnc`",
    "vm wait": "nb-progress",
}
#: These read a list or one of it, which all pages of a group do; or create and delete by the words of HTTP.
USUAL = {"list": "/v1/", "show": "api.get(", "create": '"POST"', "delete": '"DELETE"', "rename": '"PATCH"'}
#: Commands without a page, and why.
WITHOUT = {
    "bus": "it begins or checks the bus, before there is a gateway",
    "context": "it is about the command line itself",
    "demo": "it needs a platform of its own",
    "export": "a copy of the log is a file of the platform's machine",
    "feed": "every page follows the log",
    "gateway": "it is a role",
    "guest-data": "it is a role",
    "handlers": "it is a role",
    "image build": "it needs root on the platform's machine",
    "import": "it begins a platform",
    "keys": "the keys of events are files of the platform's machine",
    "login": "signing in is a page of its own",
    "logout": "signing out is in the menu",
    "marks": "they are on the line of time",
    "node join": "it runs on the host that joins",
    "project members": "they are on the page of a project",
    "projections": "it is a role",
    "rebuild": "the read models belong to the platform's machine",
    "replay": "it reads the log without a gateway",
    "schemas": "it is for programs",
    "up": "it starts the platform",
    "vault": "it needs the master key, which no gateway has",
    "verify": "it proves the log without trusting a gateway",
    "version": "it is about the command line itself",
    "whoami": "it is in the menu",
    "node usage": "the page of a node draws it",
}


def commands(command: object, at: tuple[str, ...] = ()) -> Iterator[str]:
    below: dict[str, object] | None = getattr(command, "commands", None)
    if below is None:
        yield " ".join(at)
        return
    for name, each in below.items():
        yield from commands(each, (*at, name))


ALL = sorted(commands(typer.main.get_command(app)))


def test_each_command_has_a_page_or_a_reason() -> None:
    missing = []
    for name in ALL:
        group, _, verb = name.rpartition(" ")
        if name in WITHOUT or name.split(" ")[0] in WITHOUT:
            continue
        text = "".join((WEB / page).read_text() for page in PAGES[group])
        sign = SIGNS.get(name) or USUAL.get(verb) or f'"{verb}"'
        if sign not in text:
            missing.append(f"{name}: no page has {sign}")
    assert missing == []


def test_no_reason_is_for_a_command_that_is_not_there() -> None:
    known = {*ALL, *(name.split(" ")[0] for name in ALL)}
    assert {*WITHOUT, *SIGNS} - known == set()


OF_A_VM = ("vm.js", "vm-facts.js", "vm-actions.js", "vm-groups.js", "vm-text.js")
SOURCES = {name: (WEB / "pages" / name).read_text() for name in OF_A_VM}
#: Fields of a VM that its page does not show, and why.
LEFT_OUT: dict[str, str] = {}


def test_each_field_of_a_vm_is_on_its_page_or_left_out_for_a_reason() -> None:
    fields = set(VmView.__annotations__)
    types = (WEB / "core" / "types.d.ts").read_text()
    typed = re.search(r"^interface VmView \{\n(.*?)^\}", types, re.DOTALL | re.MULTILINE)
    assert typed is not None
    assert set(re.findall(r"^  (\w+):", typed[1], re.MULTILINE)) == fields, "core/types.d.ts"
    text = "".join(SOURCES.values())
    taken = ",".join(re.findall(r"\w+\(.*\{([^{}]*)\}.*\) \{$", text, re.MULTILINE))  # what functions take out of a VM
    used = {field for field in fields if re.search(rf"\bvm\.{field}\b", text) or re.search(rf"\b{field}\b", taken)}
    assert fields - used - set(LEFT_OUT) == set(), "show it, or say why not"
    assert set(LEFT_OUT) <= fields - used, "it is shown"


def test_each_verb_of_the_api_has_an_action() -> None:
    verbs = {action.verb for action in ACTIONS if action.kind == "vm" and not action.creates}
    assert set(re.findall(r'\bverb: "(\w+)"', SOURCES["vm-actions.js"])) == verbs
