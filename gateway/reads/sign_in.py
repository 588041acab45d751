"""The two addresses with which a browser signs in at the issuer. Both answer a redirect, also when something is wrong:
a person reads the answer, so the console's page says why, by a code that it knows.
"""

from starlette.requests import Request
from starlette.responses import Response

from gateway.access.attempts import FIRST, SignInRefused, is_page, refused_at
from gateway.access.sessions import TooLong
from gateway.state import Gateway
from runtime import logs

log = logs.get(__name__)


async def begin(gateway: Gateway, request: Request) -> Response:
    """Send the browser to the issuer. `page` has to be a page of the console; no other address is ever gone to."""
    page = request.query_params.get("page", FIRST)
    if len(request.query_params.getlist("page")) > 1 or not is_page(page):
        return _refused(SignInRefused("page", "it shall lead to a page that is none of the console"), FIRST)
    codes, host = gateway.issuer.codes if gateway.issuer is not None else None, request.headers.get("host")
    if codes is None or host is None or not gateway.access.needed:
        return _refused(SignInRefused("none", "no issuer offers it here"), page)
    attempt, cookie = gateway.attempts.begin(page, host)
    try:
        return _redirect(await codes.address(attempt), cookie)
    except SignInRefused as error:
        return _refused(error, page)


async def done(gateway: Gateway, request: Request) -> Response:
    """Take the code of the issuer, and begin a session with the token that it is worth."""
    page, forgotten = FIRST, gateway.attempts.forgotten()
    try:
        codes = gateway.issuer.codes if gateway.issuer is not None else None
        query = dict(request.query_params)
        if codes is None or len(query) != len(request.query_params.multi_items()):
            raise SignInRefused("lost", "no issuer has asked for this")
        attempt = gateway.attempts.end(request.headers.get("cookie"), query.get("state", ""))
        page = attempt.page
        found = await codes.exchanged(attempt, query)
        ends = found.identity.ends.timestamp() if found.identity.ends is not None else None
        _, cookie = gateway.sessions.begin(found.token, ends, found.refresh)
    except SignInRefused as error:
        return _refused(error, page, forgotten)
    except TooLong as error:
        return _refused(SignInRefused("long", str(error)), page, forgotten)
    return _redirect(page, forgotten, cookie)


def _refused(error: SignInRefused, page: str, *cookies: str) -> Response:
    log.warning("sign-in refused", code=error.code, why=error.why)
    return _redirect(refused_at(page, error.code), *cookies)


def _redirect(address: str, *cookies: str) -> Response:
    response = Response(status_code=302, headers={"Location": address, "Cache-Control": "no-store"})
    for cookie in cookies:
        response.headers.append("Set-Cookie", cookie)
    return response
