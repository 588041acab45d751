"""From which sites a browser may call, under which names, and what every answer tells it."""

import hashlib
from pathlib import Path

import httpx
import pytest

from gateway.access.sites import served as sites
from gateway.http.problems import Problem
from gateway.http.security_headers import ALWAYS, SecurityHeaders
from tests.gateway.platform import Platform, served

NAMES, ORIGINS = "cloud.example, Cloud2.Example", "https://console.example"
TOKEN = "secret-a"


def judged(host: str | None, origin: str | None, site: str | None = None, mode: str | None = None, **how: bool) -> str:
    """The code of the refusal; empty if the call is accepted."""
    try:
        sites("0.0.0.0", NAMES, ORIGINS, only_local=how.get("only_local", False)).judge(host, origin, site, mode)
    except Problem as problem:
        return problem.code
    return ""


@pytest.mark.parametrize(
    ("host", "origin", "refused"),
    [
        ("127.0.0.1:8700", None, False),
        ("localhost:8700", "http://localhost:8700", False),
        ("[::1]:8700", None, False),
        ("[::1]", None, False),
        (None, None, False),
        ("127.0.0.1:8700", "http://evil.example", True),
        ("evil.example:8700", "http://evil.example:8700", True),
        ("127.0.0.1.evil.example", None, True),
        ("127.0.0.1:8700", "null", True),
        ("cloud.example", None, True),
        ("192.168.1.4:8700", None, True),
    ],
)
def test_without_tokens_only_this_host_is_served(host: str | None, origin: str | None, refused: bool) -> None:
    assert judged(host, origin, only_local=True) == ("foreign_origin" if refused else "")


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("cloud.example:8700", None, ""),
        ("CLOUD2.example.", None, ""),
        ("192.168.1.4:8700", None, ""),
        ("[fd00::1]:8700", "https://[fd00::1]:8700", ""),
        ("cloud.example", "https://cloud.example", ""),
        ("cloud.example", "https://CONSOLE.example", ""),
        ("cloud.example", "http://console.example", "foreign_origin"),
        ("cloud.example", "https://console.example:444", "foreign_origin"),
        ("cloud.example", "https://console.example.evil", "foreign_origin"),
        ("cloud.example", "null", "foreign_origin"),
        ("cloud.example:8700", "https://cloud.example", "foreign_origin"),
        ("evil.example", "http://evil.example", "foreign_host"),
        ("cloud.example.evil", None, "foreign_host"),
        ("evil@cloud.example", None, "foreign_host"),
        ("127.0.0.1.evil", None, "foreign_host"),
        ("", None, "foreign_host"),
    ],
)
def test_names_and_origins_are_judged_with_tokens_too(host: str, origin: str | None, code: str) -> None:
    assert judged(host, origin) == code


@pytest.mark.parametrize(
    ("site", "mode", "code"),
    [
        ("same-origin", "cors", ""),
        ("none", "navigate", ""),
        ("cross-site", "navigate", ""),
        ("cross-site", "no-cors", "foreign_origin"),
        ("same-site", "cors", "foreign_origin"),
        ("cross-site", None, "foreign_origin"),
    ],
)
def test_what_a_browser_says_of_a_call_without_an_origin(site: str, mode: str | None, code: str) -> None:
    assert judged("cloud.example", None, site, mode) == code


async def test_a_right_token_does_not_help_another_site(api: Platform, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"alice {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    mine = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        served(api.side, api.dsn, tokens_file=file, http_names="cloud.example") as (_, url),
        httpx.AsyncClient(base_url=url, headers=mine, timeout=30) as http,
    ):
        assert (await http.get("/v1/projects", headers={"Host": "cloud.example"})).status_code == 200
        refused = await http.get("/v1/projects", headers={"Host": "evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (421, "foreign_host")
        refused = await http.post("/v1/projects", json={}, headers={"Origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
        refused = await http.get("/healthz", headers={"Host": "evil.example"})
        assert refused.status_code == 421, "also where no token is needed"


@pytest.mark.parametrize("path", ["/healthz", "/v1/projects", "/v1/projects/none", "/v1/feed", "/no/such", "/metrics"])
async def test_every_answer_tells_a_browser_what_it_must_not_do(api: Platform, path: str) -> None:
    async with api.http.stream("GET", path) as answer:
        for name, value in ALWAYS:
            given = answer.headers[name.decode()]
            assert given == value.decode() or (name == b"cache-control" and given == "no-store")
        assert "strict-transport-security" not in answer.headers


def test_a_header_of_the_answer_itself_is_kept_and_tls_is_remembered() -> None:
    added = dict(SecurityHeaders(tls=True).missing([(b"Cache-Control", b"no-store")]))
    assert b"cache-control" not in added
    assert added[b"strict-transport-security"] == b"max-age=63072000"
