"""The reads about who calls: tokens, sessions, and how to log in."""

from domain.access import OPEN, SELF
from gateway import session
from gateway.reads import login, me, sign_in, tokens
from gateway.reads.read import Read
from gateway.session import SessionView
from gateway.table.parameters import PAGED, PAST
from projections.tokens import TokenView

SESSION = "/v1/session"

READS = (
    Read("/v1/tokens", SELF, tokens.many, "Tokens", ("principal", *PAGED), TokenView, listed=True),
    Read("/v1/tokens/{token}", SELF, tokens.one, "A token", PAST, TokenView),
    Read("/v1/me", SELF, me.me, "The caller, and its roles", (), me.MeView),
    Read(SESSION, SELF, session.current, "The session of this browser", (), SessionView, statuses=(404,)),
    Read(
        SESSION,
        SELF,
        session.begin,
        "Begin a session: a cookie for a token",
        (),
        SessionView,
        method="POST",
        statuses=(422,),
    ),
    Read(
        SESSION,
        SELF,
        session.end,
        "End the session of this browser",
        (),
        SessionView,
        method="DELETE",
        statuses=(404,),
    ),
    Read(
        f"{SESSION}/renew",
        SELF,
        session.renew,
        "Make the session of this browser longer, by a new token of the issuer",
        (),
        SessionView,
        method="POST",
        statuses=(404, 409, 422),
    ),
    Read("/v1/login", OPEN, login.login, "How to log in", (), login.LoginView),
    Read(
        "/v1/login/begin",
        OPEN,
        sign_in.begin,
        "Sign in at the issuer, in a browser",
        ("page",),
        redirects=True,
    ),
    Read(
        "/v1/login/done",
        OPEN,
        sign_in.done,
        "Back from the issuer: begin a session",
        ("code", "state", "error"),
        redirects=True,
    ),
)
