"""What users and service accounts share: an id, a name, roles in the cloud, and whether they are disabled.

    Create ─► enabled ◄──Enable, Disable──► disabled
                 └──────Delete, no member of a project──────┴──► deleted (in two steps, as in `named.py`)

A disabled account keeps its roles and tokens, and may do nothing. `incarnation` differs between an account and an
earlier one with the same id: tokens of the earlier one stay worthless.
"""

from collections.abc import Sequence
from dataclasses import dataclass as plain
from functools import partial
from typing import Annotated, Literal, assert_never

from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from domain.accepted_requests import NONE as NO_OPERATIONS, Operations
from domain.access import USER_MANAGE, USER_READ, Access, Grant, Role
from domain.base import LENIENT, Category, Closing, Event, Rejected, Title, being_deleted, replace
from domain.kind import Id, Kind, Scope
from domain.named import (
    DeletionBegun,
    DeletionGivenUp,
    OperationCommand,
    OperationDone,
    closing_after,
    deletion_fields,
    is_repeat,
    operation_fields,
    operations_after,
)
from domain.principal import cannot_give
from domain.references import LOOKED_UP, FinishDeletion, Users
from domain.verb import ON_ACCEPTANCE, Effect, Verb

CloudRole = Annotated[Literal[Role.AUDITOR, Role.OPERATOR], Field(description="a role in the whole cloud")]


class AccountCommand(OperationCommand):
    """A command on an account. The field with its id has the name of its kind."""

    @property
    def account(self) -> str:
        raise NotImplementedError


class Create(AccountCommand):
    VERB = "create"
    name: Title


class Change(AccountCommand):
    VERB = "change"
    name: Title | None = None


class Disable(AccountCommand):
    VERB = "disable"


class Enable(AccountCommand):
    VERB = "enable"


class Bind(AccountCommand):
    VERB = "bind"
    role: CloudRole


class Unbind(AccountCommand):
    VERB = "unbind"
    role: CloudRole


class Delete(AccountCommand):
    VERB = "delete"
    users: Annotated[Users, LOOKED_UP] = Users()


AccountCommands = Create | Change | Disable | Enable | Bind | Unbind | Delete | FinishDeletion


class AccountCreated(OperationDone):
    """The field with its id has the name of its kind."""

    VERB = Create.VERB
    name: str

    @property
    def account(self) -> str:
        raise NotImplementedError


class AccountChanged(OperationDone):
    VERB = Change.VERB
    name: str


class AccountDisabled(OperationDone):
    """Its tokens are worthless until it is enabled."""

    VERB = Disable.VERB


class AccountEnabled(OperationDone):
    VERB = Enable.VERB


class AccountBound(OperationDone):
    """It has a role in the whole cloud."""

    VERB = Bind.VERB
    role: Role


class AccountUnbound(OperationDone):
    VERB = Unbind.VERB
    role: Role


class AccountDeleted(OperationDone):
    VERB = Delete.VERB


AccountEvents = (
    AccountCreated
    | AccountChanged
    | AccountDisabled
    | AccountEnabled
    | AccountBound
    | AccountUnbound
    | DeletionBegun
    | DeletionGivenUp
    | AccountDeleted
)


@dataclass(frozen=True, kw_only=True, config=LENIENT)
class Account:
    """The state of a user or a service account."""

    id: str
    name: str
    incarnation: str
    roles: tuple[Role, ...] = ()
    disabled: bool = False
    deleted: bool = False
    closing: Closing | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    operations: Operations = NO_OPERATIONS


@plain(frozen=True, kw_only=True)
class Messages:
    """The kind of account, and its types of commands and events."""

    kind: str
    plural: str
    title: str
    create: type[Create]
    change: type[Change]
    disable: type[Disable]
    enable: type[Enable]
    bind: type[Bind]
    unbind: type[Unbind]
    delete: type[Delete]
    created: type[AccountCreated]
    changed: type[AccountChanged]
    disabled: type[AccountDisabled]
    enabled: type[AccountEnabled]
    bound: type[AccountBound]
    unbound: type[AccountUnbound]
    deleted: type[AccountDeleted]
    deletion_begun: type[DeletionBegun]
    deletion_given_up: type[DeletionGivenUp]


# ── decide ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def usable(of: Messages, account: Account | None, id_: str, _: str) -> Account:
    """The account, if it may get a role or a token. Raises Rejected."""
    if account is None or account.deleted:
        detail = f"there is no {of.title} {id_}; create it first"
        raise Rejected(f"{of.kind}_not_found", detail, Category.INVALID, field="principal")
    if account.closing is not None:
        raise being_deleted(of.title, id_, field="principal")
    return account


def decide(of: Messages, account: Account | None, command: AccountCommands) -> Sequence[Event]:
    """The events that follow from a command on an account. Raises Rejected."""
    if isinstance(command, FinishDeletion):
        return finish(of, account, command)
    if is_repeat(of.kind, account, command):
        return []
    fields = operation_fields(command)
    if isinstance(command, Create):
        if account is not None and not account.deleted:
            detail = f"there is a {of.title} {account.id} already; choose another id"
            raise Rejected(f"{of.kind}_exists", detail, field="id")
        return [of.created.model_validate({**fields, of.kind: command.account, "name": command.name})]
    if account is None:
        detail = f"there is no {of.title} {command.account}"
        raise Rejected(f"{of.kind}_not_found", detail, Category.NOT_FOUND, field=of.kind)
    if account.deleted:
        raise Rejected(f"{of.kind}_deleted", f"{of.title} {account.id} was deleted", Category.GONE)
    match command:
        case Change(name=None):
            raise Rejected("invalid_request", "nothing to change: give a name", Category.INVALID)
        case Change(name=name):
            return [of.changed(**fields, name=name)]
        case Disable():
            return [of.disabled(**fields)]
        case Enable():
            return [of.enabled(**fields)]
        case Bind():
            return [of.bound(**fields, role=command.role)]
        case Unbind():
            if command.role not in account.roles:
                raise Rejected("not_bound", f"{of.title} {account.id} does not have the role {command.role}")
            return [of.unbound(**fields, role=command.role)]
        case Delete():
            used = in_use(of, account, command.users)
            if used is not None:
                raise used
            return [of.deletion_begun(**deletion_fields(command))]
        case _:
            assert_never(command)


def in_use(of: Messages, account: Account, users: Users) -> Rejected | None:
    """The refusal to delete an account that is a member of projects; None if it is not. It names ten of them."""
    if not (used := users.counted()):
        return None
    projects = users.of("project")
    where = f" ({', '.join(projects[:10])}{', …' if len(projects) > 10 else ''})" if projects else ""
    detail = f"{of.title} {account.id} still has roles in {used}{where}; unbind it there first"
    return Rejected(f"{of.kind}_in_use", detail)


def finish(of: Messages, account: Account | None, command: FinishDeletion) -> Sequence[Event]:
    if account is None or account.closing is None:
        return []
    used = in_use(of, account, command.users)
    if used is not None:
        return [of.deletion_given_up(at=command.at, code=used.code, detail=used.detail)]
    deletion = account.closing
    return [of.deleted(at=command.at, operation=deletion.operation, fingerprint=deletion.fingerprint)]


# ── evolve ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def evolve(account: Account | None, event: Event) -> Account | None:
    """The state after an event. A deleted account's id may be used again; the new one keeps the old operations."""
    if isinstance(event, AccountCreated):
        return Account(
            id=event.account,
            name=event.name,
            incarnation=event.operation,
            created_at=event.at,
            updated_at=event.at,
            operations=operations_after(account, event),
        )
    if account is None or not isinstance(event, AccountEvents):
        return account
    if isinstance(event, DeletionBegun | DeletionGivenUp):
        return replace(account, closing=closing_after(event))
    done = replace(account, updated_at=event.at, operations=operations_after(account, event))
    match event:
        case AccountChanged():
            return replace(done, name=event.name)
        case AccountDisabled():
            return replace(done, disabled=True)
        case AccountEnabled():
            return replace(done, disabled=False)
        case AccountBound():
            return replace(done, roles=tuple(sorted({*done.roles, event.role})))
        case AccountUnbound():
            return replace(done, roles=tuple(role for role in done.roles if role != event.role))
        case AccountDeleted():
            return replace(done, deleted=True, closing=None)
        case AccountCreated():
            return done
        case _:
            assert_never(event)


# ── the kind ────────────────────────────────────────────────────────────────────────────────────────────────────────


def admit(access: Access, command: AccountCommand, _: Account | None) -> AccountCommand:
    """Nobody gives a role whose permissions they do not have themselves. Raises Rejected."""
    if isinstance(command, Bind) and not access.has(Grant(command.role)):
        raise cannot_give(command.role)
    return command


def account_kind(of: Messages) -> Kind[Account, AccountCommands]:
    """The kind with these messages."""

    def verb(
        command: type[AccountCommand], summary: str, accepted_by: type[OperationDone], effect: Effect = Effect.ACTS
    ) -> Verb[AccountCommand]:
        return Verb(
            name=command.VERB,
            command=command,
            summary=summary,
            effect=effect,
            permission=USER_MANAGE,
            accepted_by=(accepted_by,),
            fulfilled_by=ON_ACCEPTANCE,
            two_steps=effect is Effect.DELETES,
            admit=admit,
        )

    return Kind[Account, AccountCommands](
        name=of.kind,
        plural=of.plural,
        title=of.title,
        scope=Scope.CLOUD,
        id=Id.SLUG,
        state=Account,
        readable_by=USER_READ,
        verbs=(
            verb(of.create, f"Create a {of.title}", of.created, Effect.CREATES),
            verb(of.change, f"Change the name of a {of.title}", of.changed, Effect.CHANGES),
            verb(of.disable, f"Disable a {of.title}: it may do nothing until it is enabled", of.disabled),
            verb(of.enable, f"Enable a disabled {of.title}", of.enabled),
            verb(of.bind, f"Give a {of.title} a role in the whole cloud", of.bound),
            verb(of.unbind, f"Take a role in the whole cloud from a {of.title}", of.unbound),
            verb(of.delete, f"Delete a {of.title} that has no role in a project", of.deleted, Effect.DELETES),
        ),
        events=(of.deletion_begun, of.deletion_given_up),
        decide=partial(decide, of),
        evolve=evolve,
        deleted=lambda account: account.deleted,
        usable=partial(usable, of),
    )
