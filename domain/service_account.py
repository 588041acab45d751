"""Service accounts: programs that use the platform. As principals they are called `service:<id>`.

`account.py` has the rules.
"""

from domain import account
from domain.base import Slug
from domain.named import DeletionBegun, DeletionGivenUp


class ServiceAccountCommand(account.AccountCommand):
    service_account: Slug

    @property
    def account(self) -> str:
        return self.service_account


class CreateServiceAccount(ServiceAccountCommand, account.Create): ...


class ChangeServiceAccount(ServiceAccountCommand, account.Change): ...


class DisableServiceAccount(ServiceAccountCommand, account.Disable): ...


class EnableServiceAccount(ServiceAccountCommand, account.Enable): ...


class BindServiceAccount(ServiceAccountCommand, account.Bind): ...


class UnbindServiceAccount(ServiceAccountCommand, account.Unbind): ...


class DeleteServiceAccount(ServiceAccountCommand, account.Delete): ...


class ServiceAccountCreated(account.AccountCreated):
    TOPIC = "nebula.service_account.ServiceAccountCreated"
    service_account: str

    @property
    def account(self) -> str:
        return self.service_account


class ServiceAccountChanged(account.AccountChanged):
    TOPIC = "nebula.service_account.ServiceAccountChanged"


class ServiceAccountDisabled(account.AccountDisabled):
    """Its tokens are worthless until it is enabled."""

    TOPIC = "nebula.service_account.ServiceAccountDisabled"


class ServiceAccountEnabled(account.AccountEnabled):
    TOPIC = "nebula.service_account.ServiceAccountEnabled"


class ServiceAccountBound(account.AccountBound):
    """It has a role in the whole cloud."""

    TOPIC = "nebula.service_account.ServiceAccountBound"


class ServiceAccountUnbound(account.AccountUnbound):
    """It has lost a role in the whole cloud."""

    TOPIC = "nebula.service_account.ServiceAccountUnbound"


class ServiceAccountDeleted(account.AccountDeleted):
    TOPIC = "nebula.service_account.ServiceAccountDeleted"


class ServiceAccountDeletionBegun(DeletionBegun):
    TOPIC = "nebula.service_account.ServiceAccountDeletionBegun"


class ServiceAccountDeletionGivenUp(DeletionGivenUp):
    TOPIC = "nebula.service_account.ServiceAccountDeletionGivenUp"


SERVICE_ACCOUNT = account.account_kind(
    account.Messages(
        kind="service_account",
        plural="service-accounts",
        title="service account",
        create=CreateServiceAccount,
        change=ChangeServiceAccount,
        disable=DisableServiceAccount,
        enable=EnableServiceAccount,
        bind=BindServiceAccount,
        unbind=UnbindServiceAccount,
        delete=DeleteServiceAccount,
        created=ServiceAccountCreated,
        changed=ServiceAccountChanged,
        disabled=ServiceAccountDisabled,
        enabled=ServiceAccountEnabled,
        bound=ServiceAccountBound,
        unbound=ServiceAccountUnbound,
        deleted=ServiceAccountDeleted,
        deletion_begun=ServiceAccountDeletionBegun,
        deletion_given_up=ServiceAccountDeletionGivenUp,
    )
)
