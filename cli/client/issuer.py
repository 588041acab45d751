"""Tokens of an OIDC issuer: the device flow (RFC 8628), and the renewal of tokens before they expire."""

import base64
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn
from urllib.parse import urlencode, urlsplit

from cli.client.contexts import Context, Contexts, Login, Store
from cli.client.errors import CliError, Unreachable, Usage
from runtime.issuer import issuer as judged_issuer, within
from runtime.text.plain import plain

#: Seconds between two questions whether the login is complete, and by how many more after `slow_down`.
INTERVAL, SLOWER = 5.0, 5.0
#: Bounds of what an issuer may say: seconds of an interval, and of a login.
LEAST_INTERVAL, MOST_INTERVAL, MOST_LOGIN = 1.0, 60.0, 1800.0
#: Seconds for one answer of the issuer, and its maximum bytes.
PATIENCE, MOST = 30.0, 256 * 1024
#: A token is renewed this many seconds before it expires, or after three quarters of its time.
EARLY = 60.0
#: Lock of the process that renews a token.
RENEWAL = "renewal.lock"

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"

Document = dict[str, Any]


def log_in(offer: Document, say: Callable[[str], None]) -> tuple[str, Login]:
    """Log in with the device flow: a token for the platform, and how to renew it.

    `offer`: the issuer, client, audience and scopes that the platform named. Raises CliError, Unreachable, Usage.
    """
    issuer = str(offer["issuer"])
    about = _discovered(issuer)
    client, audience = str(offer["client_id"]), str(offer["audience"])
    form = {"client_id": client, "scope": " ".join(offer["scopes"]), **_resource(audience)}
    status, begun = _post(_endpoint(about, "device_authorization_endpoint"), form)
    if status != 200:
        _refused(issuer, status, begun)
    code, uri = _text(begun, "device_code"), _text(begun, "verification_uri")
    ends = time.monotonic() + min(_seconds(begun, "expires_in", 600.0), MOST_LOGIN)
    interval = min(max(_seconds(begun, "interval", INTERVAL), LEAST_INTERVAL), MOST_INTERVAL)
    complete = begun.get("verification_uri_complete")
    say(f"open {_web(complete if isinstance(complete, str) else uri)}")
    say(f"and confirm the code {plain(_text(begun, 'user_code'), keep='')} (or enter it at {_web(uri)})")
    endpoint = _endpoint(about, "token_endpoint")
    form = {"grant_type": DEVICE, "device_code": code, "client_id": client, **_resource(audience)}
    while time.monotonic() + interval < ends:
        time.sleep(interval)
        try:
            status, answer = _post(endpoint, form)
        except Unreachable as error:
            say(f"{error}; still waiting")
            interval = min(interval * 2 or 1.0, MOST_INTERVAL)
            continue
        match answer.get("error"):
            case None if status == 200:
                login = Login(issuer, client, audience, endpoint, 0.0, None, _revocation(about))
                return _kept(answer, login)
            case "authorization_pending":
                pass
            case "slow_down":
                interval = min(interval + SLOWER, MOST_INTERVAL)
            case "expired_token":
                break
            case "access_denied":
                raise CliError("the login was refused at the issuer")
            case _:
                _refused(issuer, status, answer)
    raise CliError("the login was not confirmed in time; begin again")


def renewed(store: Store, name: str, context: Context) -> str:
    """The token of a context, renewed if it expires soon. One process renews it, and the others take the result.

    Raises CliError if somebody has to log in again, Unreachable.
    """
    if context.login is None or time.time() < context.login.renew_at:
        return context.token or ""
    with store.turn(RENEWAL):
        found = store.read().all.get(name, context)
        if found.url != context.url or found.login is None or time.time() < found.login.renew_at:
            return found.token if found.url == context.url and found.token else context.token or ""
        login = found.login
        if login.refresh_token is None:
            return found.token or ""  # the platform says whether it has expired
        form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token, "client_id": login.client_id}
        try:
            status, answer = _post(login.token_endpoint, {**form, **_resource(login.audience)})
        except Unreachable:
            if time.time() > login.renew_at + EARLY:
                raise
            return found.token or ""  # it is still valid
        if status != 200:
            if answer.get("error") == "invalid_grant":
                raise CliError(f"the login has ended; log in again: nebula login {context.url}")
            _refused(login.issuer, status, answer)
        token, login = _kept(answer, login)

        def change(contexts: Contexts) -> Contexts:
            if name not in contexts.all or contexts.all[name].login is None:  # a logout meanwhile counts
                return contexts
            return replace(contexts, all={**contexts.all, name: replace(found, token=token, login=login)})

        store.update(change)
        return token


def revoke(login: Login) -> None:
    """Tell the issuer that a login has ended. Raises Unreachable."""
    if login.revocation_endpoint is not None and login.refresh_token is not None:
        _post(login.revocation_endpoint, {"token": login.refresh_token, "client_id": login.client_id})


def _kept(answer: Document, login: Login) -> tuple[str, Login]:
    """The token for the platform in an answer of the issuer: the access token, or else the ID token."""
    named = (answer.get(each) for each in ("access_token", "id_token"))
    token = next((each for each in named if isinstance(each, str) and login.audience in _audiences(each)), None)
    if token is None:
        raise CliError(
            f"{login.issuer} gave no token for the audience {plain(login.audience, keep='')}: "
            "its client has to be set up for that"
        )
    lasts = _seconds(answer, "expires_in", 300.0)
    refresh = answer.get("refresh_token", login.refresh_token)
    renew_at = time.time() + lasts - min(EARLY, lasts / 4)
    return token, replace(login, renew_at=renew_at, refresh_token=refresh if isinstance(refresh, str) else None)


def _audiences(token: str) -> list[str]:
    """The audiences that a JWT names, unverified; none for any other token."""
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _resource(audience: str) -> dict[str, str]:
    """An audience that is a URL is asked for as a resource (RFC 8707)."""
    return {"resource": audience} if audience.startswith(("https://", "http://")) else {}


def _discovered(issuer: str) -> Document:
    """The discovery document. Raises Usage for an issuer that may not be asked."""
    try:
        url = judged_issuer(issuer)
    except ValueError as error:
        raise Usage(f"the platform names an issuer that is not asked: {plain(issuer, keep='')}: {error}") from error
    status, about = _asked("GET", f"{url.removesuffix('/')}/.well-known/openid-configuration", None)
    if status != 200 or about.get("issuer") != issuer:
        raise CliError(f"{url} is not the issuer that it has to be")
    for name in ("device_authorization_endpoint", "token_endpoint", "revocation_endpoint"):
        if about.get(name) is not None:
            try:
                within(str(about[name]), url)
            except ValueError as error:
                raise CliError(f"the {name} of {url} is not asked: {error}") from error
    return about


def _endpoint(about: Document, name: str) -> str:
    if not isinstance(about.get(name), str):
        raise CliError(f"the issuer has no {name}: it does not offer the device flow")
    return str(about[name])


def _revocation(about: Document) -> str | None:
    found = about.get("revocation_endpoint")
    return found if isinstance(found, str) else None


def _web(url: str) -> str:
    """An address for people to open, printable. Raises CliError if it is none."""
    if not url.startswith(("https://", "http://")):
        raise CliError("the issuer named an address that is none of the web")
    return plain(url, keep="")


def _text(document: Document, name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or not found:
        raise CliError(f"the answer of the issuer has no {name}")
    return found


def _seconds(document: Document, name: str, default: float) -> float:
    found = document.get(name, default)
    good = isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < 10**9
    return float(found) if good else default


def _refused(issuer: str, status: int, answer: Document) -> NoReturn:
    said = answer.get("error_description") or answer.get("error") or status
    raise CliError(f"{issuer} refused: {plain(str(said)[:300], keep='')}")


def _post(url: str, form: dict[str, str]) -> tuple[int, Document]:
    return _asked("POST", url, urlencode(form))


def _asked(method: str, url: str, body: str | None) -> tuple[int, Document]:
    """The status and the JSON object of an answer. Redirects are not followed. Raises Unreachable."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        from runtime.trust import trusted  # (loads slowly)

        connection = http.client.HTTPSConnection(host, parts.port, timeout=PATIENCE, context=trusted())
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=PATIENCE)
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), body, headers)
        response = connection.getresponse()
        content = response.read(MOST + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{parts.scheme}://{parts.netloc} does not answer: {error or 'connection lost'}") from error
    finally:
        connection.close()
    try:
        found = json.loads(content or b"{}") if len(content) <= MOST else None
    except (ValueError, RecursionError):
        found = None
    if response.status >= 500:
        raise Unreachable(f"{parts.scheme}://{parts.netloc} answered {response.status}")
    if not isinstance(found, dict):
        raise CliError(
            f"{parts.scheme}://{parts.netloc} is no OIDC issuer: it answered {response.status} without an object"
        )
    return response.status, found
