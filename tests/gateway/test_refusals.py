"""Refused calls: limited, logged without a secret, and shown to auditors by every gateway."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access.addresses import client, network_of, networks
from gateway.access.limits import Buckets
from runtime.token_text import random, split
from tests.gateway.platform import Platform, served
from tests.gateway.test_access import digest
from tests.waiting import eventually

ALICE = {"Authorization": "Bearer a"}
LIMIT = 5


@pytest.fixture
async def two(api: Platform, tmp_path: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of two gateways, which trust no proxy, and one that is a proxy's."""
    file = tmp_path / "tokens"
    file.write_text(f"alice {digest('a')}\n")
    async with AsyncExitStack() as stack:
        made = []
        for proxies in ("", "127.0.0.0/8"):
            _, url = await stack.enter_async_context(
                served(api.side, api.dsn, tokens_file=file, refusals_per_minute=LIMIT, trusted_proxies=proxies)
            )
            made.append(await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30)))
        yield made


async def test_refusals_are_limited_and_right_tokens_are_not(
    two: list[httpx.AsyncClient], capfd: pytest.CaptureFixture[str]
) -> None:
    http = two[0]
    token = random()
    parts = split(token)
    assert parts is not None
    wrong = {"Authorization": f"Bearer {token}"}
    found = [await http.get("/v1/projects", headers=wrong) for _ in range(LIMIT + 2)]
    assert [answer.status_code for answer in found] == [401] * LIMIT + [429] * 2
    assert found[-1].json()["code"] == "too_many_refusals"
    assert 1 <= int(found[-1].headers["retry-after"]) <= 60
    spoofed = await http.get("/v1/projects", headers={**wrong, "X-Forwarded-For": "203.0.113.9"})
    assert spoofed.status_code == 429, "a header of a client is not its address"
    assert (await http.get("/v1/projects", headers=ALICE)).status_code == 200
    metrics = (await http.get("/metrics", headers=ALICE)).text
    assert f'nebula_refusals_total{{code="unauthorized"}} {LIMIT}.0' in metrics
    assert 'nebula_refusals_total{code="too_many_refusals"} 3.0' in metrics

    for gateway in two:

        async def kept(gateway: httpx.AsyncClient = gateway) -> list[dict[str, Any]]:
            page = await gateway.get(f"/v1/refusals?credential={parts[0]}", headers=ALICE)
            assert token not in page.text and parts[1] not in page.text
            items: list[dict[str, Any]] = page.json()["items"]
            return items if len(items) == LIMIT else []

        items = await eventually(kept, "both gateways show the refusals")
        assert items[0]["at"] >= items[-1]["at"]
        assert {(item["status"], item["address"], item["path"]) for item in items} == {
            (401, "127.0.0.1", "/v1/projects")
        }
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "call refused" in line]
    assert all(parts[1] not in line for line in lines)


async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(two: list[httpx.AsyncClient]) -> None:
    http = two[1]

    async def status(forwarded: str) -> int:
        return (await http.get("/v1/projects", headers={"X-Forwarded-For": forwarded})).status_code

    assert [await status("203.0.113.7") for _ in range(LIMIT + 1)] == [401] * LIMIT + [429]
    assert await status("203.0.113.8, 203.0.113.7") == 429, "what a client claims comes first"
    assert await status("203.0.113.8") == 401

    async def kept() -> bool:
        page = await http.get("/v1/refusals?address=203.0.113.7", headers=ALICE)
        return len(page.json()["items"]) == LIMIT

    await eventually(kept, "the client's address is shown")


async def test_pages_of_refusals(two: list[httpx.AsyncClient]) -> None:
    http = two[1]
    for number in range(3):
        await http.get(f"/v1/projects/p{number}", headers={"X-Forwarded-For": "203.0.113.20"})

    async def kept() -> list[dict[str, Any]]:
        page = (await http.get("/v1/refusals?address=203.0.113.20&limit=2", headers=ALICE)).json()
        return [page] if len(page["items"]) == 2 and page["items"][0]["path"] == "/v1/projects/p2" else []

    [page] = await eventually(kept, "the newest two")
    token = page["next_page_token"]
    rest = await http.get(f"/v1/refusals?address=203.0.113.20&limit=2&page_token={token}", headers=ALICE)
    assert [item["path"] for item in rest.json()["items"]] == ["/v1/projects/p0"]
    assert rest.json()["next_page_token"] is None


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "203.0.113.1", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.1, 10.0.0.9", "203.0.113.1"),
        ("10.0.0.1", "203.0.113.1, x", "10.0.0.1"),
        ("10.0.0.1", "x, 203.0.113.1", "203.0.113.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2,10.0.0.3", "10.0.0.2"),
        ("::ffff:10.0.0.1", "2001:DB8::1", "2001:db8::1"),
        ("fe80::1", "::1", "fe80::1"),
    ],
)
def test_the_address_of_a_client(peer: str, forwarded: str | None, address: str) -> None:
    assert client({"client": (peer, 1)}, forwarded, networks("10.0.0.0/8, fd00::/8")) == address


def test_one_client_has_a_whole_network_of_ipv6() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("unknown") == "unknown"


def test_a_bucket_fills_again() -> None:
    now = 0.0
    buckets = Buckets(per_minute=2, clock=lambda: now)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 30]
    assert buckets.take("b") == 0
    now = 29.0
    assert buckets.take("a") == 1
    now = 30.0
    assert [buckets.take("a"), buckets.take("a")] == [0, 30]


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.access.limits.MOST", 3)
    buckets = Buckets(per_minute=1)
    for number in range(10):
        buckets.take(str(number))
    assert len(buckets._left) == 3
