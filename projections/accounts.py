"""Users and service accounts: their tables and how the API shows them."""

from typing_extensions import TypedDict

from domain.access import Role
from domain.account import Account
from domain.service_account import SERVICE_ACCOUNT
from domain.user import USER
from projections.aggregates import COMMON, Aggregates
from projections.times import text


class AccountView(TypedDict):
    """A user or a service account as the API shows it. `roles` are those in the whole cloud."""

    id: str
    name: str
    roles: list[Role]
    disabled: bool
    created_at: str
    updated_at: str
    version: int
    position: int


def view(state: Account, version: int, position: int) -> AccountView:
    return {
        "id": state.id,
        "name": state.name,
        "roles": list(state.roles),
        "disabled": state.disabled,
        "created_at": text(state.created_at),
        "updated_at": text(state.updated_at),
        "version": version,
        "position": position,
    }


USERS = Aggregates[Account, AccountView](
    of=USER,
    revision=3,
    columns={},
    view=view,
    ddl=f"""
        CREATE TABLE users ({COMMON});
        CREATE INDEX ON users (created) WHERE NOT deleted;
    """,
)
SERVICE_ACCOUNTS = Aggregates[Account, AccountView](
    of=SERVICE_ACCOUNT,
    revision=3,
    columns={},
    view=view,
    ddl=f"""
        CREATE TABLE service_accounts ({COMMON});
        CREATE INDEX ON service_accounts (created) WHERE NOT deleted;
    """,
)
