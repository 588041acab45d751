"""Tokens of a real OIDC server: whose are accepted, for whom, and what happens when it rotates its keys or is away."""

import asyncio
import base64
import html
import json
import re
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from cli.client import issuer as device
from cli.client.contexts import Store
from cli.client.issuer import renewed
from cli.main import main
from domain.access import Access, Grant, Role
from gateway.access import key_set, oidc
from gateway.access.identity import NOBODY, Identity
from gateway.access.oidc_login import BadIssuer
from gateway.http.problems import Problem
from gateway.main import run
from runtime.settings import GatewaySettings
from runtime.tasks.patience import CannotRun
from tests.gateway.platform import SPEC, VMS, Platform, served
from tests.oidc.issuer import AUDIENCE, CLI, OTHER, SERVICES, Issuer, jwk, rsa_key
from tests.waiting import eventually

ROLES = {"claim": "groups", "map": {"ops": "operator", "web": ["member@web", "viewer@default"], "audit": "auditor"}}
OPERATOR = frozenset({Grant(Role.OPERATOR)})
WEB = frozenset({Grant(Role.MEMBER, "web"), Grant(Role.VIEWER, "default")})


def settings(issuer: Issuer, **more: Any) -> dict[str, Any]:
    return {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_client_id": CLI, "oidc_roles": ROLES, **more}


def verifier(issuer: Issuer, **more: Any) -> oidc.Issuer:
    made = oidc.opened(GatewaySettings(**settings(issuer, **more)))
    assert made is not None
    return made


async def refusal(verifier: oidc.Issuer, token: str) -> str:
    with pytest.raises(Problem) as refused:
        await verifier.identify(token)
    assert refused.value.status == 401
    assert refused.value.headers == {"WWW-Authenticate": "Bearer"}
    return refused.value.detail


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may be fetched again without a pause."""
    monkeypatch.setattr(key_set, "COOLDOWN", 0.0)


@pytest.mark.parametrize("client", SERVICES)
async def test_a_token_of_each_algorithm(issuer: Issuer, client: str) -> None:
    token = await issuer.token(client)
    assert jwt.get_unverified_header(token)["alg"] == SERVICES[client]
    found = await verifier(issuer).identify(token)
    assert found is not None
    expected = {"ci": OPERATOR, "deploy": WEB}.get(client, frozenset())
    assert found.access == Access(f"oidc:{client}", expected)
    assert found.ends is not None and found.ends.timestamp() > time.time() + 500


def flipped(token: str) -> str:
    """The token with another signature."""
    return token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]


def by_hmac(issuer: Issuer, **claims: Any) -> str:
    """Signed with the public key as if it were a shared secret."""
    public = next(iter(issuer.keys.values())).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body, _ = issuer.forged(header={"alg": "RS256"}).split(".")
    import hashlib
    import hmac

    head = encoded({"alg": "HS256", "typ": "JWT", "kid": next(iter(issuer.keys))})
    mac = hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def without_signature(issuer: Issuer, algorithm: str = "none") -> str:
    body = issuer.forged().split(".")[1]
    return f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{body}."


NOW = int(time.time())
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "audience": ({"aud": OTHER}, "another audience"),
    "audiences": ({"aud": [OTHER, "x"], "azp": CLI}, "another audience"),
    "no audience": ({"aud": None}, "has no aud"),
    "an empty audience": ({"aud": []}, "has no aud"),
    "issuer": ({"iss": "https://evil.test"}, "another issuer"),
    "issuer with a slash": ({"iss": "{url}/"}, "another issuer"),
    "no issuer": ({"iss": None}, "another issuer"),
    "expired": ({"exp": NOW - 120}, "expired"),
    "without an end": ({"exp": None}, "has no exp"),
    "end is no time": ({"exp": "soon"}, "claims are wrong"),
    "endless": ({"exp": float("inf")}, "claims are wrong"),
    "not yet": ({"nbf": NOW + 3600}, "not valid yet"),
    "of the future": ({"iat": NOW + 3600}, "not valid yet"),
    "without a beginning": ({"iat": None}, "has no iat"),
    "several audiences, of nobody": ({"aud": [AUDIENCE, OTHER]}, "azp"),
    "several audiences, of another client": ({"aud": [AUDIENCE, OTHER], "azp": "stranger"}, "azp"),
    "no subject": ({"sub": None}, "claim sub"),
    "subject with blanks": ({"sub": "a b"}, "cannot be a principal"),
    "subject with a line end": ({"sub": "alice\n"}, "cannot be a principal"),
    "subject of other letters": ({"sub": "\u0430lice"}, "cannot be a principal"),
    "empty subject": ({"sub": ""}, "cannot be a principal"),
    "long subject": ({"sub": "a" * 251}, "cannot be a principal"),
    "bound to a key": ({"cnf": {"jkt": "x"}}, "proof"),
    "logout": ({"events": {}}, "neither"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_claims_that_are_refused(issuer: Issuer, case: str) -> None:
    claims, says = WRONG[case]
    if "url" in str(claims.get("iss")):
        claims = {"iss": f"{issuer.url}/"}
    assert says in await refusal(verifier(issuer), issuer.forged(**claims))


@pytest.mark.parametrize("header", [{"typ": "logout+jwt"}, {"typ": "dpop+jwt"}, {"crit": ["b64"], "b64": True}])
async def test_other_sorts_of_tokens_are_refused(issuer: Issuer, header: dict[str, Any]) -> None:
    assert "this token is refused" in await refusal(verifier(issuer), issuer.forged(header=header))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_access_tokens_and_id_tokens(issuer: Issuer, typ: str | None) -> None:
    assert await verifier(issuer).identify(issuer.forged(header={"typ": typ}))


async def test_no_subject_is_a_part_of_the_platform(issuer: Issuer) -> None:
    found = await verifier(issuer).identify(issuer.forged(sub="system:handlers"))
    assert found is not None and found.actor == "oidc:system:handlers"


async def test_id_tokens_are_for_the_client_only(issuer: Issuer) -> None:
    """They are accepted if the audience of this platform is the client, and no other client asked for them."""
    token = issuer.forged(header={"typ": "JWT"}, aud=CLI)
    assert "another audience" in await refusal(verifier(issuer), token)
    own = verifier(issuer, oidc_audience=CLI)
    assert await own.identify(token)
    assert await own.identify(issuer.forged(aud=CLI, azp=CLI))
    assert "azp" in await refusal(own, issuer.forged(aud=CLI, azp="stranger"))
    assert "azp" in await refusal(verifier(issuer, oidc_client_id=None), issuer.forged(aud=[AUDIENCE, OTHER]))


async def test_forged_signatures_are_refused(issuer: Issuer) -> None:
    check = verifier(issuer)
    good = issuer.forged()
    assert await check.identify(good)
    own = rsa_key()
    public = {name: value for name, value in jwk(own, "own").items() if name in ("kty", "n", "e")}
    for token, says in (
        (flipped(good), "signature"),
        (without_signature(issuer), "algorithm"),
        (without_signature(issuer, "None"), "algorithm"),
        (without_signature(issuer, "RS256"), "signature"),
        (by_hmac(issuer), "algorithm"),
        (issuer.forged(own), "signature"),
        (issuer.forged(own, header={"jwk": public}), "signature"),
        (issuer.forged(own, header={"kid": None, "jku": "http://127.0.0.1:1/keys"}), "signature"),
        (issuer.forged(own, header={"alg": "PS256"}), "algorithm"),
        (issuer.forged(own, header={"alg": "RS512"}), "algorithm"),
        (issuer.forged(header={"kid": "curve"}), "its key"),
        ("a.b.c", "no valid JWT"),
        ("..", "no valid JWT"),
        (issuer.forged(filling="x" * 9000), "longer than"),
        (f"{encoded({'alg': 'RS256'})}.{'[' * 3000}.x", "no valid JWT"),
        (f"{encoded({'alg': ['RS256']})}.{encoded({})}.x", "this token"),
        (f"{encoded({'alg': 'RS256', 'kid': 7})}.{encoded({})}.x", "this token"),
    ):
        assert says in await refusal(check, token), token
    assert await check.identify("nbl_abc_def") is None


@pytest.mark.parametrize(
    ("groups", "grants"),
    [
        (["ops"], OPERATOR),
        ("ops", OPERATOR),
        ("ops staff", frozenset()),
        (["web", "none", 7, None, ["ops"]], WEB),
        (None, frozenset()),
        ({"ops": True}, frozenset()),
        (7, frozenset()),
        (True, frozenset()),
        ([], frozenset()),
        (["x"] * 1000 + ["ops"], frozenset()),
    ],
)
async def test_roles_are_what_a_claim_is_mapped_to(issuer: Issuer, groups: Any, grants: frozenset[Grant]) -> None:
    found = await verifier(issuer).identify(issuer.forged(groups=groups))
    assert found is not None and found.access.grants == grants


async def test_the_claim_of_roles_may_be_inside_another_one(issuer: Issuer) -> None:
    check = verifier(issuer, oidc_roles={"claim": "realm_access.roles", "map": {"ops": "operator"}})
    for claims, grants in (
        ({"realm_access": {"roles": ["ops"]}}, OPERATOR),
        ({"realm_access.roles": ["ops"]}, OPERATOR),
        ({"realm_access": ["roles", "ops"]}, frozenset()),
        ({"realm_access": {"roles": {"ops": 1}}}, frozenset()),
    ):
        found = await check.identify(issuer.forged(**claims))
        assert found is not None and found.access.grants == grants, claims


@pytest.mark.parametrize(
    ("claims", "principal"),
    [
        ({"email": "alice@a.test", "email_verified": True}, "oidc:alice@a.test"),
        ({"email": "alice@a.test"}, None),
        ({"email": "alice@a.test", "email_verified": "true"}, None),
        ({"email": ["alice@a.test"], "email_verified": True}, None),
        ({}, None),
    ],
)
async def test_an_address_names_somebody_only_if_it_was_verified(
    issuer: Issuer, claims: dict[str, Any], principal: str | None
) -> None:
    check = verifier(issuer, oidc_claim="email")
    if principal is None:
        await refusal(check, issuer.forged(**claims))
    else:
        found = await check.identify(issuer.forged(**claims))
        assert found is not None and found.actor == principal


async def test_bindings_of_the_log_are_added_and_looked_at_again(issuer: Issuer) -> None:
    bound: dict[str, frozenset[Grant]] = {"oidc:alice": frozenset({Grant(Role.ADMIN, "lab")})}
    check = verifier(issuer)
    check.bindings = lambda principal: bound.get(principal, frozenset())
    token = issuer.forged(groups=["web"])
    found = await check.identify(token)
    assert found is not None and found.access.grants == WEB | bound["oidc:alice"]
    del bound["oidc:alice"]
    now = check.still(found)
    assert now is not None and now.access.grants == WEB
    again = await check.identify(token)
    assert again is not None and again.access.grants == WEB
    assert check.still(NOBODY) is None
    assert check.still(Identity(Access("oidc:alice", OPERATOR))) is None


async def counted(issuer: Issuer, check: oidc.Issuer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fetches of documents from now on."""
    fetched: list[str] = []
    document = key_set._document

    async def counting(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
        fetched.append(url)
        return await document(http, url)

    monkeypatch.setattr(key_set, "_document", counting)
    return fetched


async def test_rotated_keys_are_fetched_once(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = dict(issuer.keys)
    check = verifier(issuer)
    fetched = await counted(issuer, check, monkeypatch)
    old = issuer.forged()
    first = await asyncio.gather(*(check.identify(old) for _ in range(20)))
    assert all(first) and len(fetched) == 2
    try:
        await issuer.rotate(second=rsa_key(), curve=keys["curve"], edwards=keys["edwards"])
        new = await issuer.token("ci")
        assert jwt.get_unverified_header(new)["kid"] == "second"
        assert "its key" in await refusal(check, new)  # it asked a moment ago
        assert len(fetched) == 2
        monkeypatch.setattr(key_set, "COOLDOWN", 0.0)
        found = await asyncio.gather(*(check.identify(new) for _ in range(20)))
        assert all(found) and len(fetched) == 4
        monkeypatch.setattr(key_set, "COOLDOWN", 60.0)
        for _ in range(100):
            await refusal(check, issuer.forged(header={"kid": str(uuid.uuid4())}))
        assert len(fetched) == 4
        assert "its key" in await refusal(check, old)
        earlier = first[0]
        assert earlier is not None
        with pytest.raises(Problem, match="its key"):
            check.still(earlier)
    finally:
        await issuer.rotate(**keys)


async def test_keys_are_kept_while_the_issuer_is_away(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, again: None
) -> None:
    check = verifier(issuer)
    found = await check.identify(issuer.forged())
    assert found is not None

    async def away(*_: object) -> dict[str, Any]:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(key_set, "_document", away)
    monkeypatch.setattr(key_set, "FRESH", -1.0)  # every call begins a fetch
    for _ in range(3):
        assert await check.identify(issuer.forged(sub="bob", jti=str(uuid.uuid4())))
    assert check.still(found) is not None
    assert "its key" in await refusal(check, issuer.forged(rsa_key(), header={"kid": "unknown"}))
    monkeypatch.setattr(key_set, "KEPT", -1.0)
    with pytest.raises(Problem) as refused:
        await check.identify(issuer.forged())
    assert (refused.value.status, refused.value.code) == (503, "issuer_away")
    with pytest.raises(Problem) as refused:
        check.still(found)
    assert refused.value.status == 503
    monkeypatch.undo()
    monkeypatch.setattr(key_set, "COOLDOWN", 0.0)
    assert await check.identify(issuer.forged())


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"issuer": "https://evil.test", "jwks_uri": "https://evil.test/jwks"}, "is of the issuer"),
        ({"issuer": "{url}"}, "no jwks_uri"),
        ({"issuer": "{url}", "jwks_uri": "http://169.254.169.254/keys"}, "https"),
        ({"issuer": "{url}", "jwks_uri": "http://127.0.0.1:1/keys"}, "own host"),
        ({"issuer": "{url}", "jwks_uri": "file:///etc/passwd"}, "https"),
        ({"issuer": "{url}", "jwks_uri": "{url}/moved"}, "answered 302"),
        ({"issuer": "{url}", "jwks_uri": "{url}/huge"}, "more than"),
        ({"issuer": "{url}", "jwks_uri": "{url}/text"}, "Expecting value"),
        ({"issuer": "{url}", "jwks_uri": "{url}/list"}, "an object"),
        ({"issuer": "{url}", "jwks_uri": "{url}/many"}, "at most"),
        ({"issuer": "{url}", "jwks_uri": "{url}/slow"}, "TimeoutError"),
    ],
)
async def test_an_issuer_that_answers_what_it_must_not(
    document: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        about = json.dumps({name: value.replace("{url}", url) for name, value in document.items()}).encode()
        status, body = {
            b"/moved": (b"302 Found\r\nLocation: /jwks", b""),
            b"/huge": (b"200 OK", b" " * 300_000),
            b"/text": (b"200 OK", b"<html>"),
            b"/list": (b"200 OK", b"[]"),
            b"/many": (b"200 OK", json.dumps({"keys": [{}] * 65}).encode()),
        }.get(path, (b"200 OK", about))
        if path == b"/slow":
            await ended.wait()
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body))
        writer.close()

    if says == "TimeoutError":
        monkeypatch.setattr(key_set, "PATIENCE", 0.2)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    check = verifier(Issuer(process=None, url=url))  # type: ignore[arg-type]
    token = Issuer(process=None, url=url, keys={"k": rsa_key()}).forged()  # type: ignore[arg-type]
    with pytest.raises(Problem) as refused:
        await check.identify(token)
    ended.set()
    server.close()
    assert (refused.value.status, refused.value.code) == (503, "issuer_away")
    assert says in refused.value.detail


async def test_only_keys_for_signatures_with_our_algorithms_are_used(issuer: Issuer) -> None:
    good = jwk(issuer.keys["first"], "k")
    assert key_set._usable(good) is not None
    small = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    for other in (
        None,
        {},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        good | {"use": "enc"},
        good | {"alg": "RS512"},
        good | {"n": 7},
        small,
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed448", "x": "AA"},
        {"kty": "OKP", "crv": "Ed25519"},
    ):
        assert key_set._usable(other) is None, other


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example",
        "ftp://login.example",
        "https://",
        "https://a@login.example",
        "https://login.example?x=1",
        "https://login.example#x",
        "http://127.0.0.1.login.example",
        "http://10.0.0.1",
        "https://login.example:0",
        "https://login.example:x",
        "https://lo gin.example",
    ],
)
def test_an_issuer_that_is_none(url: str) -> None:
    with pytest.raises(ValidationError, match="oidc_issuer"):
        GatewaySettings(oidc_issuer=url, oidc_audience=AUDIENCE)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"oidc_audience": None}, "NEBULA_OIDC_AUDIENCE"),
        ({"oidc_ca_file": "/none"}, "NEBULA_OIDC_CA_FILE"),
        ({"oidc_roles": {"claim": "groups", "map": {"x": "king"}}}, "NEBULA_OIDC_ROLES"),
        ({"oidc_roles": {"claim": "groups", "map": {"x": "operator@web"}}}, "NEBULA_OIDC_ROLES"),
    ],
)
def test_settings_of_an_issuer_that_cannot_be_used(issuer: Issuer, given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadIssuer, match=says):
        verifier(issuer, **given)


async def test_an_issuer_needs_authentication(issuer: Issuer) -> None:
    with pytest.raises(CannotRun, match="NEBULA_AUTH"):
        await run(GatewaySettings(**settings(issuer, auth="none")))


async def test_a_gateway_knows_the_owner_of_a_token(
    api: Platform, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, again: None
) -> None:
    """A feed that is open ends when the key is withdrawn that its token was signed with."""
    keys = dict(issuer.keys)
    async with (
        served(api.side, api.dsn, auth="tokens", **settings(issuer)) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        offer = await http.get("/v1/login")
        assert offer.json() == {
            "token_needed": True,
            "oidc": {
                "issuer": issuer.url,
                "client_id": CLI,
                "audience": AUDIENCE,
                "scopes": ["openid", "offline_access"],
            },
        }
        assert (await http.get(VMS)).status_code == 401
        mine = {"Authorization": f"Bearer {await issuer.token('ci')}"}
        assert (await http.get(VMS, headers=mine)).status_code == 200
        strange = {"Authorization": f"Bearer {issuer.forged(aud=OTHER)}"}
        refused = await http.get(VMS, headers=strange)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        async with http.stream("GET", "/v1/feed?from=now", headers=mine) as feed:
            assert feed.status_code == 200
            try:
                await issuer.rotate(second=rsa_key(), curve=keys["curve"], edwards=keys["edwards"])
                monkeypatch.setattr(key_set, "FRESH", -1.0)
                async for _ in feed.aiter_bytes():
                    pass
                assert (await http.get(VMS, headers=mine)).status_code == 401
            finally:
                await issuer.rotate(**keys)


async def test_without_an_issuer_nobody_logs_in(api: Platform, issuer: Issuer) -> None:
    async with served(api.side, api.dsn) as (_, url), httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/v1/login")).json() == {"token_needed": False, "oidc": None}
    assert verifier(issuer, oidc_client_id=None).login() is None
    assert oidc.opened(GatewaySettings()) is None


async def confirm(url: str, account: str) -> None:
    """What somebody does in a browser at the issuer: log in as `account`, and consent."""

    def form(page: str) -> tuple[str, dict[str, str]]:
        """The first form of a page, with the fields that it has already."""
        action = re.search(r'<form[^>]*action="([^"]+)"', page)
        assert action is not None, page
        found = re.findall(r'<(?:input|button)[^>]*name="([^"]+)"[^>]*value="([^"]*)"', page)
        return html.unescape(action[1]), {name: html.unescape(value) for name, value in found if name != "abort"}

    async with httpx.AsyncClient(follow_redirects=True, timeout=30) as browser:
        page = (await browser.get(url)).text
        for _ in range(6):
            action, fields = form(page)
            if fields.get("prompt") == "login":
                fields |= {"login": account, "password": "any"}
            elif "user_code" in fields:
                fields |= {"confirm": "yes"}
            answer = await browser.post(httpx.URL(url).join(action), data=fields)
            assert answer.status_code == 200, answer.text
            page = answer.text
            if "Success" in page:
                return
    raise AssertionError(page)


async def test_somebody_logs_in_by_the_device_flow(
    api: Platform,
    issuer: Issuer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To the end, with the real server: the token lets them in, and is renewed before it expires."""
    monkeypatch.setattr(device, "INTERVAL", 0.05)
    monkeypatch.setattr(device, "LEAST_INTERVAL", 0.05)
    said: list[str] = []
    monkeypatch.setattr("cli.commands.contexts._say", said.append)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NEBULA_HOME", str(tmp_path))
    for name in ("NEBULA_URL", "NEBULA_TOKEN", "NEBULA_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    async def nebula(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
        printed = capsys.readouterr()
        assert not ended.value.code, printed.err
        return printed.out

    store = Store(tmp_path / "nebula")
    async with served(api.side, api.dsn, auth="tokens", **settings(issuer)) as (_, url):
        login = asyncio.create_task(nebula("login", url))
        await eventually(lambda: asyncio.sleep(0, len(said) == 2 or login.done()), "code")
        assert len(said) == 2, await login
        await confirm(said[0].removeprefix("open "), "alice")
        assert "as oidc:alice" in await login
        kept = store.read().all["127.0.0.1"]
        assert kept.login is not None and kept.login.refresh_token and kept.token
        assert jwt.get_unverified_header(kept.token)["typ"] == "at+jwt"
        assert json.loads(await nebula("vm", "list", "-o", "json"))["items"] is not None

        soon = replace(kept, login=replace(kept.login, renew_at=0.0))
        store.update(lambda found: replace(found, all={"127.0.0.1": soon}))
        await asyncio.gather(*(asyncio.to_thread(renewed, store, "127.0.0.1", soon) for _ in range(4)))
        after = store.read().all["127.0.0.1"]
        assert after.login is not None and after.login.renew_at > time.time() and after.token != kept.token
        assert issuer.url in await nebula("context", "list")
        assert json.loads(await nebula("vm", "list", "-o", "json"))["items"] is not None
        await nebula("logout")
        assert store.read().all["127.0.0.1"].token is None
        status, answer = await asyncio.to_thread(
            device._post,
            after.login.token_endpoint,
            {"grant_type": "refresh_token", "refresh_token": after.login.refresh_token or "", "client_id": CLI},
        )
        assert (status, answer["error"]) == (400, "invalid_grant")


async def test_a_binding_in_a_project_counts_until_it_is_removed(api: Platform, issuer: Issuer) -> None:
    """For reads, for commands and for an open feed; handlers know the principal too."""
    project = f"p-{uuid.uuid4().hex[:8]}"
    vms = f"/v1/projects/{project}/vms"
    async with (
        served(api.side, api.dsn, auth="tokens", **settings(issuer)) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        operator = {"Authorization": f"Bearer {await issuer.token('ci')}"}
        tenant = {"Authorization": f"Bearer {await issuer.token('backup')}"}
        feed_of = f"/v1/projects/{project}/feed"

        async def seen() -> bool:
            return (await http.get("/v1/me", headers=operator)).status_code == 200

        await eventually(seen, "the gateway knows the log")
        made = await http.post("/v1/projects?wait=10s", json={"name": project}, headers=operator)
        assert made.status_code in (200, 202), made.text
        assert made.json()["operation"]["actor"] == "oidc:ci"
        assert (await http.get(vms, headers=tenant)).status_code == 404
        bound = await http.post(
            f"/v1/projects/{project}/bind", json={"principal": "oidc:backup", "role": "member"}, headers=operator
        )
        assert bound.status_code in (200, 202), bound.text

        async def allowed() -> bool:
            return (await http.get(vms, headers=tenant)).status_code == 200

        await eventually(allowed, "the binding")
        body = {"name": "web-1", "image": "base", **SPEC}
        created = await http.post(vms, json=body, headers=tenant)
        assert created.status_code == 202, created.text
        assert created.json()["operation"]["actor"] == "oidc:backup"
        refused = await http.post("/v1/tags", json={"name": "mine"}, headers=tenant)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        async with http.stream("GET", f"{feed_of}?from=now", headers=tenant) as feed:
            assert feed.status_code == 200
            removed = await http.post(
                f"/v1/projects/{project}/unbind", json={"principal": "oidc:backup"}, headers=operator
            )
            assert removed.status_code in (200, 202), removed.text
            async for _ in feed.aiter_bytes():
                pass

        async def hidden() -> bool:
            return (await http.get(vms, headers=tenant)).status_code == 404

        await eventually(hidden, "the end of the binding")
        assert (await http.post(vms, json=body, headers=tenant)).status_code == 404
