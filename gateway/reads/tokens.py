"""Tokens: callers see their own, auditors and operators those of everybody."""

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from domain.access import TOKEN_READ, Access
from domain.kind import SYSTEM
from domain.token import Token
from eventstore.log.envelope import Ref
from gateway.http import parameters
from gateway.http.parameters import not_found, path_id
from gateway.http.problems import Problem
from gateway.reads import moments, past
from gateway.reads.reads import answer, as_json, listed, page_key, shown
from gateway.state import Gateway, caller, rows_reflect
from projections import aggregates, pages
from projections.aggregates import Found
from projections.past import queries
from projections.tokens import TOKENS


async def many(gateway: Gateway, request: Request) -> Response:
    """A page of tokens that are not revoked: of the caller, or of everybody, as its roles allow."""
    access = caller(request).identity.access
    principal = parameters.word(request, "principal")
    after, limit = await page_key(gateway, request, TOKENS.table) or 0, parameters.limit(request)
    at = await moments.asked(gateway, request)
    own = None if access.may(TOKEN_READ) else access.principal
    where = (
        "(%(principal)s::text IS NULL OR principal = %(principal)s) AND (%(own)s::text IS NULL OR principal = %(own)s)"
    )
    params = {"principal": principal, "own": own}
    if at is not None:
        position = await past.ready(gateway, request, at)
        then = await queries.where_page(gateway.past.pool, TOKENS, position, after, limit, where, params)
        return listed(request, TOKENS.table, then.items, then.next, position)
    await gateway.fresh(request, kind=TOKENS.kind)
    found = await pages.page(gateway.pool, TOKENS, after, limit, where, params)
    return listed(
        request, TOKENS.table, [shown(gateway, TOKENS, item) for item in found.items], found.next, found.position
    )


async def one(gateway: Gateway, request: Request) -> Response:
    """A token. Raises Problem: 404 if it does not exist or is another's, after the same steps; 410 if it is revoked."""
    access, id_ = caller(request).identity.access, path_id(request, "token")
    ref = Ref(SYSTEM, "token", id_)
    at = await moments.asked(gateway, request)
    if at is not None:
        then = await past.known(gateway, request, TOKENS, ref, at, lambda text: may_see(access, text))
        return as_json(past.undeleted(TOKENS, ref, then).text)
    await gateway.fresh(request, id_)

    async def visible() -> Found[Token] | None:
        found, position = await aggregates.get(gateway.pool, TOKENS, ref, mine=None)
        rows_reflect(request, position)
        if found is None or not (access.may(TOKEN_READ) or found.state.principal == access.principal):
            return None
        return found

    token = await visible()
    if token is None:
        await gateway.caught_up(request)
        token = await visible()
    if token is None:
        raise not_found("token", id_)
    if token.deleted:
        raise Problem(410, "token_revoked", f"token {id_} was revoked")
    return answer(shown(gateway, TOKENS, TOKENS.shown(token)))


def may_see(access: Access, token: str) -> bool:
    """Whether a caller may see a token, by its JSON."""
    return access.may(TOKEN_READ) or from_json(token)["principal"] == access.principal
