"""Users: people who use the platform. As principals they are called `user:<id>`.

`account.py` has the rules.
"""

from domain import account
from domain.base import Slug
from domain.named import DeletionBegun, DeletionGivenUp


class UserCommand(account.AccountCommand):
    user: Slug

    @property
    def account(self) -> str:
        return self.user


class CreateUser(UserCommand, account.Create): ...


class ChangeUser(UserCommand, account.Change): ...


class DisableUser(UserCommand, account.Disable): ...


class EnableUser(UserCommand, account.Enable): ...


class BindUser(UserCommand, account.Bind): ...


class UnbindUser(UserCommand, account.Unbind): ...


class DeleteUser(UserCommand, account.Delete): ...


class UserCreated(account.AccountCreated):
    TOPIC = "nebula.user.UserCreated"
    user: str

    @property
    def account(self) -> str:
        return self.user


class UserChanged(account.AccountChanged):
    TOPIC = "nebula.user.UserChanged"


class UserDisabled(account.AccountDisabled):
    """Its tokens are worthless until it is enabled."""

    TOPIC = "nebula.user.UserDisabled"


class UserEnabled(account.AccountEnabled):
    TOPIC = "nebula.user.UserEnabled"


class UserBound(account.AccountBound):
    """It has a role in the whole cloud."""

    TOPIC = "nebula.user.UserBound"


class UserUnbound(account.AccountUnbound):
    """It has lost a role in the whole cloud."""

    TOPIC = "nebula.user.UserUnbound"


class UserDeleted(account.AccountDeleted):
    TOPIC = "nebula.user.UserDeleted"


class UserDeletionBegun(DeletionBegun):
    TOPIC = "nebula.user.UserDeletionBegun"


class UserDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.user.UserDeletionGivenUp"


USER = account.account_kind(
    account.Messages(
        kind="user",
        plural="users",
        title="user",
        create=CreateUser,
        change=ChangeUser,
        disable=DisableUser,
        enable=EnableUser,
        bind=BindUser,
        unbind=UnbindUser,
        delete=DeleteUser,
        created=UserCreated,
        changed=UserChanged,
        disabled=UserDisabled,
        enabled=UserEnabled,
        bound=UserBound,
        unbound=UserUnbound,
        deleted=UserDeleted,
        deletion_begun=UserDeletionBegun,
        deletion_given_up=UserDeletionGivenUp,
    )
)
