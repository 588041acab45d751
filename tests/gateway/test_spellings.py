"""Ids, digests and words in any spelling name the same; and no problem speaks as a library does."""

import hashlib
import json
import uuid
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.commands import bodies
from gateway.commands.actions import ACTIONS
from gateway.http.problems import invalid_body
from tests.gateway.platform import SPEC, VMS, Platform

#: What is put into each field of each body.
WRONG: list[Any] = [None, True, -1, 1.5, 10**400, float("inf"), "", "x" * 100_000, "A_é\u202e", [], [7], [[]] * 99, {}]
#: How pydantic speaks.
LIBRARY = ("should", "Input", "Value error", "valid ", "validation")


def texts(body: type[Any], given: Any) -> str:
    try:
        body.model_validate_json(json.dumps(given))
    except ValidationError as error:
        return str(invalid_body(error).detail)
    return ""


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: f"{action.kind}-{action.verb}")
def test_what_is_wrong_with_a_body_is_said_in_our_words(action: Any) -> None:
    fields = action.body.model_fields
    wrong: list[Any] = [*WRONG, {"no-such-field": 1}, *({name: value} for name in fields for value in WRONG)]
    for given in wrong:
        said = texts(action.body, given)
        assert not any(word in said for word in LIBRARY), said
    assert texts(action.body, [1])


def test_half_a_character_is_told() -> None:
    with pytest.raises(ValidationError) as caught:
        bodies.CreateVm.model_validate_json(b'{"name": "\\ud800"}')
    problem = invalid_body(caught.value)
    assert problem.code == "invalid_json" and "hex escape" in problem.detail and "Invalid" not in problem.detail


async def test_handlers_speak_in_the_same_words(api: Platform) -> None:
    given = {"tag": "t", "name": 7}
    answer = await api.side.ask("system", "tag", "create", given)
    assert answer["problem"]["detail"] == "name: has to be text, in quotes"
    vm = str(uuid.uuid4())
    made = await api.side.ask("default", "vm", "create", {**api.side.vm_args(vm), "name": "Web", "vm": vm.upper()})
    assert "lower-case letters" in made["problem"]["detail"]


async def test_a_vm_is_found_by_its_id_in_upper_case(api: Platform) -> None:
    id_ = str(uuid.uuid4())
    body = {"id": id_.upper(), "name": "web-1", "image": "base", **SPEC}
    made = await api.call("POST", VMS, body, Idempotency_Key=f"k-{id_}")
    assert made.status_code == 202 and made.json()["vm"]["id"] == id_
    again = await api.call("POST", VMS, {**body, "id": id_}, Idempotency_Key=f"k-{id_}")
    assert again.headers.get("Idempotent-Replayed") == "true", "the same request in another spelling"
    upper = f"{VMS}/{id_.upper()}"
    assert (await api.get(upper))["id"] == id_
    first = await api.call("PATCH", upper, {"protected": True}, Idempotency_Key=f"p-{id_}")
    second = await api.call("PATCH", f"{VMS}/{id_}", {"protected": True}, Idempotency_Key=f"p-{id_}")
    assert first.json()["operation"]["id"] == second.json()["operation"]["id"]
    operation = first.json()["operation"]["id"]
    assert (await api.get(f"/v1/operations/{operation.upper()}"))["id"] == operation
    assert len((await api.get(f"/v1/operations?vm={id_.upper()}"))["items"]) == 2
    assert (await api.get(f"/v1/events?vm={id_.upper()}&limit=1"))["items"]
    by_bus = await api.side.ask("default", "vm", "change", {"vm": id_.upper(), "protected": False})
    assert by_bus["ok"]["state"]["id"] == id_


async def test_an_image_is_registered_in_any_spelling(api: Platform) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    body = {"id": "spelled", "source": "HTTP://127.0.0.1:1/My.img", "sha256": f"SHA256:{digest.upper()}"}
    more = {"architecture": "ARM64", "distribution": "Debian", "release": "13"}
    made = await api.call("POST", "/v1/images", {**body, **more})
    assert made.status_code == 202, made.text
    image = made.json()["image"]
    assert (image["source"], image["sha256"]) == ("http://127.0.0.1:1/My.img", digest)
    assert (image["architecture"], image["distribution"]) == ("aarch64", "debian")
    found = await api.get("/v1/images?architecture=arm64&distribution=DEBIAN")
    assert "spelled" in [each["id"] for each in found["items"]]
    assert not {each["architecture"] for each in found["items"]} - {"aarch64"}


async def test_an_id_that_is_taken_says_by_whom(api: Platform) -> None:
    made = await api.create()
    vm = made["vm"]["id"]
    body = {"id": vm, "name": "web-1", "image": "base", **SPEC}
    living = await api.call("POST", VMS, body)
    assert (living.status_code, living.json()["code"]) == (409, "vm_exists")
    assert "is that of VM web-1" in living.json()["detail"]
    await api.call("POST", "/v1/projects", {"name": "other"})
    elsewhere = await api.call("POST", "/v1/projects/other/vms", body)
    assert elsewhere.json()["code"] == "vm_exists" and "another resource's" in elsewhere.json()["detail"]


@pytest.mark.parametrize(
    "name", ["\u0301a", "a \u0301b", "a\u202eb", "a\u2066b", "a\u200db", "a\u0085b", "a\u00a0b", "\ufeffa"]
)
@pytest.mark.parametrize("path", ["/v1/projects", "/v1/tags"])
async def test_names_that_do_not_look_like_what_they_are(api: Platform, path: str, name: str) -> None:
    answer = await api.call("POST", path, {"id": "odd", "name": name})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["name"]


@pytest.mark.parametrize("kind", ["project", "tag"])
async def test_two_spellings_are_one_name(api: Platform, kind: str) -> None:
    one, two = "Caf\u00e9 Z\u00fcrich", "Cafe\u0301 Zu\u0308rich"
    first = await api.call("POST", f"/v1/{kind}s", {"name": one})
    assert first.status_code == 202, first.text
    assert first.json()[kind]["name"] == one
    second = await api.call("POST", f"/v1/{kind}s", {"name": two})
    assert second.status_code == 409, "both make the same id"
    id_ = first.json()[kind]["id"]
    renamed = await api.call("PATCH", f"/v1/{kind}s/{id_}", {"name": two})
    assert renamed.json()[kind]["name"] == one


async def test_labels_are_found_in_either_spelling(api: Platform) -> None:
    made = await api.create(labels={"place": "Zu\u0308rich"})
    assert made["vm"]["labels"] == {"place": "Z\u00fcrich"}
    for spelling in ("Z%C3%BCrich", "Zu%CC%88rich"):
        found = await api.get(f"{VMS}?label=place={spelling}&min_position={made['position']}")
        assert [vm["id"] for vm in found["items"]] == [made["vm"]["id"]]
