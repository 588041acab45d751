"""Texts of others that try to become part of a page, and how a test sees that one did.

`made` puts them into every field of every kind that takes text. `Witness` looks at the pages of a browser.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import BrowserContext, Page, Request, Response

from eventstore.parking.parking import REPORTS, Parking
from tests.console.bed import IMAGE, Bed

#: A host that no page may ever ask.
EVIL = "evil.example"
#: It fits into each name for people (120 characters), and ends an attribute, a tag and a script.
TITLE = f"'\"></b><img src=//{EVIL}/a onerror=owned()><script>owned()</script>${{owned()}}"
#: For descriptions and values of labels.
TEXT = (
    f"{TITLE}<iframe srcdoc='<script>parent.owned()</script>'></iframe><svg/onload=owned()>"
    f"<a id=owned href=javascript:owned()>x</a><style>*{{background:url(//{EVIL}/b)}}</style>"
)[:255]
#: Of a caller: it has no space.
ACTOR = "<svg/onload=owned()>"
PROJECT = "hostile"
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEaXmP2RSoz3aJm5mNnBqcbzLUp1VxZGnRkx8tfvJkQy"

#: Runs in each page before its own scripts.
LOOKS = """
globalThis.owned = () => { globalThis.wasOwned = true; };
globalThis.refusedByPolicy = [];
addEventListener('securitypolicyviolation', event => {
    globalThis.refusedByPolicy.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
});
"""
#: What is on a page that no template of the console makes.
FOUND = r"""() => {
    const wrong = [...globalThis.refusedByPolicy];
    if (globalThis.wasOwned) wrong.push('a script of a text has run');
    if (document.title === 'owned' || document.getElementById('owned')) wrong.push('an id or a title of a text');
    const never = 'iframe frame object embed applet base img audio video marquee math style'.split(' ');
    const addresses = ['href', 'src', 'action', 'formaction', 'xlink:href', 'poster', 'data', 'background', 'ping'];
    for (const element of document.querySelectorAll('*')) {
        const tag = element.localName;
        if (never.includes(tag)) wrong.push(tag);
        for (const {name, value} of element.attributes) {
            if (name.startsWith('on') || name === 'srcdoc' || /[<>"']/.test(name)) wrong.push(`${tag} ${name}`);
            if (!addresses.includes(name)) continue;
            const {origin, protocol} = new URL(value, location.href);
            const outward = tag === 'a' && /^https?:$/.test(protocol) && element.relList.contains('noopener');
            if (origin !== location.origin && !outward) wrong.push(`${tag} ${name}=${value}`);
        }
    }
    return wrong;
}"""


@dataclass
class Witness:
    """What the pages of a context did that no page may do. `own`: the address of the gateway."""

    own: str
    wrong: list[str] = field(default_factory=list)

    async def watch(self, context: BrowserContext) -> None:
        await context.add_init_script(LOOKS)
        context.on("request", self._asked)
        context.on("response", self._answered)
        context.on("dialog", lambda dialog: self.wrong.append(f"a dialogue of the browser: {dialog.message}"))
        context.on("page", lambda page: self.wrong.append(f"a new window: {page.url}"))

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.own}/", "data:image/")):
            self.wrong.append(f"a request: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status == 404 and not response.url.startswith(f"{self.own}/v1/"):
            self.wrong.append(f"an address that is none: {response.url}")

    async def look(self, page: Page, where: str) -> None:
        """Note what is on a page now that no page may have."""
        self.wrong += [f"{where}: {each}" for each in await page.evaluate(FOUND)]
        self.wrong += [f"{where}: a frame {each.url}" for each in page.frames[1:]]


async def made(cloud: Bed) -> Mapping[str, str]:
    """One of each kind, whose texts are all hostile. Returns the values of the parameters of pages."""
    await cloud.allow(**{ACTOR: "operator"})
    as_actor = {"Authorization": f"Bearer {ACTOR}-token", "X-Request-Id": ACTOR}

    async def send(method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = await cloud.http.request(method, path, json=body, headers=as_actor)
        assert answer.status_code < 300, f"{path}: {answer.text}"
        return answer.json()

    sizes = {"vcpus": 1, "memory_mib": 64, "disk_gib": 1}
    await send("POST", "/v1/tags?wait=30s", {"id": "hostile-tag", "name": TITLE})
    await send("POST", "/v1/users?wait=30s", {"id": "hostile-user", "name": TITLE})
    await send("POST", "/v1/service-accounts?wait=30s", {"id": "hostile-robot", "name": TITLE})
    token = await send("POST", "/v1/tokens?wait=30s", {"name": TITLE, "principal": "service:hostile-robot"})
    flavor = {"id": "hostile-flavor", "name": TITLE, "description": TEXT, "labels": {"a": TEXT}, **sizes}
    await send("POST", "/v1/flavors?wait=30s", flavor)
    # Neither can be fetched. The reason that is kept names the source.
    image = {"id": "hostile-image", "name": TITLE, "description": TEXT, "source": f"/nowhere/{ACTOR}/x y"}
    await send("POST", "/v1/images?wait=30s", image)
    project = {"id": PROJECT, "name": TITLE, "description": TEXT, "ssh_keys": [f"{SSH_KEY} {TITLE}"]}
    await send("POST", "/v1/projects?wait=30s", {**project, "tags": ["hostile-tag"]})
    role = {"principal": "user:hostile-user", "role": "member"}
    await send("POST", f"/v1/projects/{PROJECT}/bind?wait=30s", role)
    given = {
        **{"name": "hostile-vm", "image": IMAGE, "flavor": "hostile-flavor", "tags": ["hostile-tag"]},
        **{"description": TEXT, "labels": {"a": TEXT, "b": TITLE}, "ssh_keys": [f"{SSH_KEY} {TITLE}"]},
        "user_data": f"#cloud-config\n# {TEXT}\n",
    }
    vm = await send("POST", f"/v1/projects/{PROJECT}/vms?wait=60s", given)
    key = await parked(cloud)
    await cloud.http.get(f"/v1/users/{ACTOR}", headers={"Authorization": f"Bearer {TITLE}", "User-Agent": TITLE})
    node = (await send("GET", "/v1/nodes"))["items"][0]["id"]
    position = str((await send("GET", f"/v1/events?vm={vm['vm']['id']}&limit=1"))["items"][0]["position"])
    return {
        **{"project": PROJECT, "vm": vm["vm"]["id"], "image": "hostile-image", "flavor": "hostile-flavor"},
        **{"user": "hostile-user", "service_account": "hostile-robot", "token": token["token"]["id"], "node": node},
        **{"operation": vm["operation"]["id"], "position": position, "source": REPORTS, "key": key},
    }


async def parked(cloud: Bed) -> str:
    """The key of a message of a node that nobody could read."""
    key = f"hostile-{uuid.uuid4().hex[:8]}"
    bus = await cloud.cloud.bus()
    try:
        await Parking(bus).park(
            *(REPORTS, key),
            subject="nebula.nodes.n1.reports.vm.x",
            position=7,
            error=f"no JSON: {TEXT}",
            headers={"Nebula-Sign": TEXT},
            body=TEXT.encode(),
        )
    finally:
        await bus.close()
    return key


async def removed(cloud: Bed, known: Mapping[str, str]) -> None:
    """Remove what `made` has made, so that other tests have their own."""
    await cloud.send("DELETE", f"/v1/projects/{PROJECT}/vms/{known['vm']}?wait=30s")
    await cloud.send("POST", f"/v1/parked/{REPORTS}/{known['key']}/drop", {"reason": TEXT})
    await cloud.send("POST", f"/v1/projects/{PROJECT}/unbind?wait=30s", {"principal": "user:hostile-user"})
    await cloud.send("DELETE", f"/v1/tokens/{known['token']}?wait=30s")
    for path in (
        *(f"projects/{PROJECT}", "flavors/hostile-flavor", "images/hostile-image", "tags/hostile-tag"),
        *("users/hostile-user", "service-accounts/hostile-robot"),
    ):
        await cloud.send("DELETE", f"/v1/{path}?wait=30s")


#: What stays as it is in an answer, so that pages find what they ask for next.
KEPT = re.compile(r"[0-9a-f-]{36}|[0-9a-f]{64}|[0-9.]+|\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)|")
IDS = frozenset({"id", "project", "kind", "vm", "node", "next_page_token", "csrf", "principal", "permissions"})


def poisoned(value: Any, key: str = "") -> Any:
    """An answer of the platform whose texts all end with a hostile one: as if nodes and guests could write them all."""
    match value:
        case dict():
            return {name: each if name in IDS else poisoned(each, name) for name, each in value.items()}
        case list():
            return [poisoned(each, key) for each in value]
        case str() if not KEPT.fullmatch(value):
            return f"{value} {TITLE}"
        case _:
            return value
