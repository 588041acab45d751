"""What the rules refuse, as it travels: the words of HTTP are added here, and stand nowhere in the rules."""

import json
import re
from pathlib import Path

import pytest

import domain
from domain.accepted_requests import AcceptedRequest, same_request
from domain.base import Category, Rejected
from domain.idempotency import reused_for
from domain.vm.verb import WAS_DELETED
from eventstore.vault.vault import Erased
from handlers.refusals import refusal
from runtime.bus import replies

STATUSES = {
    Category.CONFLICT: 409,
    Category.INVALID: 422,
    Category.NOT_FOUND: 404,
    Category.GONE: 410,
    Category.UNAUTHORIZED: 401,
    Category.FORBIDDEN: 403,
    Category.TOO_LARGE: 413,
    Category.UNAVAILABLE: 503,
    Category.UNAUTHORIZED: 401,
    Category.FORBIDDEN: 403,
}


def sent(error: Exception) -> object:
    refused = refusal(error)
    assert refused is not None
    return json.loads(replies.refused(refused))["problem"]


@pytest.mark.parametrize("category", Category)
def test_each_category_has_its_status(category: Category) -> None:
    told = {"code": "some_code", "status": STATUSES[category], "detail": "why", "field": "name"}
    assert sent(Rejected("some_code", "why", category, field="name")) == told


def test_a_conflict_is_what_a_refusal_is_unless_it_says_otherwise() -> None:
    assert sent(Rejected("x", "why")) == {"code": "x", "status": 409, "detail": "why", "field": None}


def test_a_key_that_was_used_is_named_by_its_header() -> None:
    with pytest.raises(Rejected) as raised:
        same_request(AcceptedRequest("start", "f"), "stop", "f")
    assert raised.value.field == "key"
    for error, what_for in ((raised.value, "for a different start request"), (reused_for("vm", "v"), "to create vm v")):
        assert sent(error) == {
            "code": "idempotency_key_reused",
            "status": 422,
            "detail": f"this Idempotency-Key was used before, {what_for}; use a new key",
            "field": "Idempotency-Key",
        }


def test_a_deleted_vm_can_be_read_as_it_was() -> None:
    gone = {"code": "vm_deleted", "status": 410, "field": None}
    assert sent(Rejected("vm_deleted", WAS_DELETED, Category.GONE)) == {
        **gone,
        "detail": "this VM was deleted; its earlier states can be read with ?at=",
    }
    assert sent(Erased("k")) == {**gone, "detail": "this VM was deleted"}


HTTP = re.compile(r"\b(40[0-9]|41[0-9]|42[0-9]|50[1-4])\b|HTTP status|Idempotency-Key|Retry-After|\?[a-z]+=")


def test_the_rules_know_no_http() -> None:
    files = [*Path(domain.__path__[0]).rglob("*.py")]
    assert len(files) > 50
    assert {file.name: said for file in files if (said := HTTP.findall(file.read_text()))} == {}
