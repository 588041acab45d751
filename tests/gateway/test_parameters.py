"""What a call says of itself, in its query and its headers, is judged before anything is looked up."""

import uuid

import httpx
import pytest

from gateway.openapi.described import PATH
from gateway.table.reads import READS
from tests.gateway.platform import VMS, Platform

NOBODY = "2a4eac9a-8cad-4466-8f01-db5cb1899700"
#: A NUL character makes sense in no parameter; a ticket is judged as a token is.
EVERY = [(read, name) for read in READS for name in read.parameters if name != "ticket" and not read.redirects]


def named(answer: httpx.Response) -> list[str]:
    """The fields that a refusal names."""
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter"), answer.text
    return [error["field"] for error in answer.json()["errors"]]


@pytest.fixture(scope="module")
async def deleted(api: Platform) -> str:
    """The path of a VM that was deleted."""
    made = await api.create(name="deleted", region="elsewhere")
    path = f"{VMS}/{made['vm']['id']}"
    assert (await api.call("DELETE", f"{path}?wait=30s")).status_code == 200
    assert (await api.http.get(path)).status_code == 410
    return path


async def test_every_parameter_is_judged_before_anything_is_looked_up(api: Platform) -> None:
    """Whether the path names nothing, or cannot name anything."""
    assert len(EVERY) > 70
    for read, name in EVERY:
        for path in (dict.fromkeys(PATH, NOBODY), dict.fromkeys(PATH, "NO SUCH THING")):
            answer = await api.http.request(read.method, read.path.format(**path), params={name: "\0"})
            assert named(answer) == [name], read.path


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("console-log?bytes=0", "bytes"),
        ("console-log?cursor=5", "cursor"),
        ("console-log?wait=1h", "wait"),
        ("guest?min_position=x", "min_position"),
        ("console?force=maybe", "force"),
        ("vnc?min_position=-1", "min_position"),
        ("feed?from=then", "from"),
        ("feed?after=1&from=now", "from"),
        ("?at=yesterday", "at"),
    ],
)
async def test_what_was_deleted_makes_no_difference(api: Platform, deleted: str, query: str, field: str) -> None:
    path = f"{deleted}{query}" if query.startswith("?") else f"{deleted}/{query}"
    assert named(await api.http.get(path)) == [field]


async def test_a_command_s_parameters_are_judged_first(api: Platform, deleted: str) -> None:
    assert named(await api.call("POST", f"{deleted}/start?wait=soon")) == ["wait"]
    assert named(await api.call("POST", f"{VMS}/{NOBODY}/stop", Idempotency_Key="with space")) == ["Idempotency-Key"]


async def test_a_feed_s_headers_are_judged_first(api: Platform) -> None:
    for path in ("/v1/projects/nobody/feed", f"{VMS}/{NOBODY}/feed"):
        assert named(await api.http.get(path, headers={"Last-Event-ID": "then"})) == ["Last-Event-ID"]
    twice = [("Last-Event-ID", "1"), ("Last-Event-ID", "2")]
    assert named(await api.http.get("/v1/feed", headers=twice)) == ["Last-Event-ID"]


@pytest.mark.parametrize("token", ["5", "5-abc", "-5-0123456789abcdef", "5-0123456789abcdef", "5-0123456789ABCDEF"])
async def test_a_page_token_of_no_page_is_refused(api: Platform, token: str) -> None:
    for path in (VMS, "/v1/projects/nobody/vms", "/v1/tags", "/v1/operations", "/v1/events", "/v1/parked"):
        assert named(await api.http.get(path, params={"page_token": token})) == ["page_token"], path


# ── X-Request-Id ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "given", [b"", b"two words", b"tab\there", b"caf\xe9", "caf\u00e9".encode(), b"a" * 129, b"a\x7f"]
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/tags", "/nowhere", f"{VMS}/{NOBODY}"])
async def test_a_malformed_request_id_is_refused(api: Platform, path: str, given: bytes) -> None:
    answer = await api.http.get(path, headers=[(b"X-Request-Id", given)])
    assert uuid.UUID(answer.headers["x-request-id"]), "the answer has one of its own"
    if b"\x7f" in given:  # no header may hold it: the listener says so
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    else:
        assert named(answer) == ["X-Request-Id"]
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_two_request_ids_are_refused(api: Platform) -> None:
    for second in ("a", "b"):
        headers = [("X-Request-Id", "a"), ("X-Request-Id", second)]
        assert named(await api.http.get("/v1/tags", headers=headers)) == ["X-Request-Id"]


async def test_a_command_with_a_malformed_request_id_does_nothing(api: Platform) -> None:
    name = f"t-{uuid.uuid4().hex}"
    assert named(await api.call("POST", "/v1/tags", {"name": name}, X_Request_Id="two words")) == ["X-Request-Id"]
    assert (await api.http.get(f"/v1/tags/{name}")).status_code == 404


@pytest.mark.parametrize("given", ["!", "~", "a" * 128, "%41/?#[]", "0"])
async def test_a_request_id_is_echoed_as_it_came(api: Platform, given: str) -> None:
    for path, status in (("/healthz", 200), ("/v1/tags/nobody", 404)):
        answer = await api.http.get(path, headers={"x-REQUEST-id": given})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, given)


# ── Host ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("LOCALHOST", None, 200),
        ("LocalHost:8700", None, 200),
        ("localhost:8700", "http://LOCALHOST:8700", 200),
        ("LOCALHOST:8700", "HTTP://localhost:8700", 200),
        ("[::1]:8700", None, 200),
        ("[0:0:0:0:0:0:0:1]:8700", "http://[0:0:0:0:0:0:0:1]:8700", 200),
        ("EVIL.example", None, 403),
        ("LOCALHOST.evil.example", None, 403),
        ("localhost:8700", "http://LOCALHOST:8701", 403),
        ("LOCALHOST:8700", "http://evil.example", 403),
    ],
)
@pytest.mark.parametrize("header", ["Host", "HOST", "host"])
async def test_the_case_of_a_host_makes_no_difference(
    api: Platform, header: str, host: str, origin: str | None, status: int
) -> None:
    answer = await api.http.get("/v1/tags", headers={header: host, **({"Origin": origin} if origin else {})})
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.json()["code"] == "foreign_origin"
