"""What the JWTs of accounts and users say, derived from the table."""

from collections.abc import Iterable, Mapping

from runtime import subjects
from runtime.bus.accounts.jwt import Claims, Json, signed
from runtime.bus.accounts.keys import Key
from runtime.bus.accounts.table import (
    A_NODE,
    AUTHORITY,
    GUEST_DATA,
    MAINTENANCE,
    NODE,
    OF_ANY_NODE,
    ROLES,
    ROWS,
    SIMULATION,
    Account,
    Answers,
    Role,
    Row,
    calls,
    inbox,
    local,
)

UNLIMITED = -1
#: Credentials that may send nothing but one answer to each request that they have heard, within so many nanoseconds.
#: Others may send to all inboxes in their account: the server would have to remember each event that they hear.
ANSWERING = (A_NODE, SIMULATION, AUTHORITY)
ANSWER_WITHIN = 300 * 10**9


def operator(key: Key, system: str) -> str:
    """The JWT of the operator. `system`: the public key of the account SYS."""
    return signed("nebula", key.public, {"type": "operator", "version": 2, "system_account": system}, key)


def account(
    which: Account, public: Mapping[Account, str], signer: str, revoked: Mapping[str, int], operator_key: Key
) -> str:
    """The JWT of an account. `public`: the public keys of all accounts; `signer`: the public key that signs its users;
    `revoked`: public keys of users, with the time in seconds since 1970 up to which their JWTs are revoked.
    """
    limits: Claims = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), UNLIMITED)
    limits |= {"wildcards": True, "leaf": 0}
    if which is Account.CONTROL:
        limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), UNLIMITED)
    nats: Claims = {
        "type": "account",
        "version": 2,
        "exports": exports(which),
        "imports": imports(which, public),
        "limits": limits,
        "signing_keys": [signer],
        "default_permissions": {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}},
    }
    if revoked:
        nats["revocations"] = dict(revoked)
    return signed(which, public[which], nats, operator_key)


def exports(which: Account) -> list[Json]:
    of_account = [row for row in ROWS if row.home is which]
    services = {wild(row.subject): row.answers for row in of_account if foreign(row, row.publish)}
    streams = {wild(row.subject) for row in of_account if foreign(row, row.hear)}
    found: list[Json] = []
    for subject in widest(services):
        response = "Stream" if services[subject] is Answers.MANY else "Singleton"
        found.append({"name": subject, "subject": subject, "type": "service", "response_type": response})
    found += [{"name": subject, "subject": subject, "type": "stream"} for subject in widest(streams)]
    return found


def widest(filters: Iterable[str]) -> list[str]:
    """The filters that no other one covers, sorted: a server refuses exports that overlap."""
    every = set(filters)
    return sorted(one for one in every if not any(covers(other, one) for other in every - {one}))


def covers(wide: str, narrow: str) -> bool:
    """Whether each subject of one filter is one of the other."""
    all_wide, all_narrow = wide.split("."), narrow.split(".")
    for index, part in enumerate(all_wide):
        if part == ">":
            return len(all_narrow) > index
        if index >= len(all_narrow) or all_narrow[index] == ">" or part not in ("*", all_narrow[index]):
            return False
    return len(all_wide) == len(all_narrow)


def wild(subject: str) -> str:
    """The filter for all nodes. A wildcard is a whole token."""
    return ".".join("*" if NODE in part else part for part in subject.split("."))


def imports(which: Account, public: Mapping[Account, str]) -> list[Json]:
    found: list[Json] = []
    for row in ROWS:
        subject = wild(row.subject)
        for sort, roles in (("service", row.publish), ("stream", row.hear)):
            if which not in foreign(row, roles):
                continue
            imported: Claims = {"name": subject, "subject": subject, "account": public[row.home], "type": sort}
            named = local(subject, row.home, which)
            if named != subject:
                imported["local_subject"] = numbered(wild(named))
            if imported not in found:
                found.append(imported)
    return found


def foreign(row: Row, roles: tuple[str, ...]) -> set[Account]:
    """The accounts of these roles, without the one in which the subject lives."""
    return {ROLES[role].account for role in roles} - {row.home}


def numbered(subject: str) -> str:
    """The subject with `$1`, `$2` … for its wildcards, as a mapped import wants it."""
    parts, number = subject.split("."), 0
    for index, part in enumerate(parts):
        if part == "*":
            number += 1
            parts[index] = f"${number}"
    return ".".join(parts)


def publishes(role: Role, node: str | None = None) -> list[str]:
    """The subjects that a credential may publish on."""
    if role.name == MAINTENANCE or role.account is Account.SYS:
        return [">"]
    found = [mine(row, role, node) for row in ROWS if role.name in row.publish and is_for(row, role, node)]
    if role.name in ANSWERING:
        return list(dict.fromkeys(found))
    asked = [row for row in calls() if role.name in row.hear and row.answers is Answers.ONE]
    if any(foreign(row, row.publish) for row in asked):
        found.append("_R_.>")  # the server's own names for the inboxes of other accounts
    if any(ROLES[who].account is role.account for row in asked for who in row.publish):
        found.append("_INBOX.>")
    return list(dict.fromkeys(found))


def hears(role: Role, node: str | None = None) -> list[str]:
    """The subjects that a credential may subscribe to."""
    if role.name == MAINTENANCE or role.account is Account.SYS:
        return [">"]
    found = [mine(row, role, node) for row in ROWS if role.name in row.hear]
    return list(dict.fromkeys([*found, f"{inbox(role.name, node)}.>"]))


def is_for(row: Row, role: Role, node: str | None) -> bool:
    """Whether a row counts for this credential of a role: guest-data of a node speaks of the guests of that node."""
    if role.name != GUEST_DATA:
        return True
    return row.subject not in OF_ANY_NODE if node is not None else NODE not in row.subject


def mine(row: Row, role: Role, node: str | None) -> str:
    """The subject of a row as a credential may use it: that of one node, or of all."""
    named = local(row.subject, row.home, role.account)
    return wild(named) if node is None else named.replace(NODE, subjects.token(node))


def user(role: Role, public: str, account_key: str, by: Key, *, expires: int | None, node: str | None = None) -> str:
    """The JWT of a credential. `account_key`: the public key of its account; `expires`: in seconds since 1970."""
    tags: list[Json] = [f"account:{role.account.lower()}", f"inbox:{inbox(role.name, node).removeprefix('_INBOX.')}"]
    if role.name == GUEST_DATA and node is not None:
        tags.append(f"guests:{node}")  # an earlier version gave the right for all nodes
    nats: Claims = {
        "type": "user",
        "version": 2,
        "issuer_account": account_key,
        "pub": {"allow": list(publishes(role, node))},
        "sub": {"allow": list(hears(role, node))},
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "allowed_connection_types": ["STANDARD"],
        "tags": tags,
    }
    if role.name in ANSWERING:
        nats["resp"] = {"max": 1, "ttl": ANSWER_WITHIN}
    return signed(role.name if node is None else f"{role.name}-{node}", public, nats, by, expires=expires)
