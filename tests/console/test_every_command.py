"""Whatever a command of `nebula` can do, a page can: each command has its module here, or a reason why it has none."""

from collections.abc import Iterator

import typer.main

from cli.main import app
from gateway.console.files import WEB

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
    "vm": ("pages/vms.js", "pages/vm.js", "pages/vm-create.js", "pages/vm-actions.js"),
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
    "vm create": '"POST"',
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
#: Commands about single VMs whose pages are still being written.
AWAITED = {
    f"vm {verb}"
    for verb in (
        *("console", "console-log", "describe", "forget", "guest", "label", "protect", "rebuild", "rename", "rescue"),
        *("resize", "restart-policy", "tag", "unprotect", "unrescue", "usage", "verbs", "vnc", "watchdog"),
    )
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
        if name in WITHOUT or name.split(" ")[0] in WITHOUT or name in AWAITED:
            continue
        text = "".join((WEB / page).read_text() for page in PAGES[group])
        sign = SIGNS.get(name) or USUAL.get(verb) or f'"{verb}"'
        if sign not in text:
            missing.append(f"{name}: no page has {sign}")
    assert missing == []


def test_no_reason_is_for_a_command_that_is_not_there() -> None:
    known = {*ALL, *(name.split(" ")[0] for name in ALL)}
    assert {*WITHOUT, *SIGNS, *AWAITED} - known == set()
