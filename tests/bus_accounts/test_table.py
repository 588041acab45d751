"""What the table must never give, whatever rows are added. The matrix tries what the table says; this judges it."""

import pytest

from runtime import subjects
from runtime.bus.accounts.claims import covers, hears, imports, publishes, wild
from runtime.bus.accounts.table import (
    A_NODE,
    ADVISORIES,
    API,
    AUTHORITY,
    BUCKET,
    GATEWAY,
    GUEST_DATA,
    HANDLERS,
    MAINTAINED,
    MAINTENANCE,
    NODE,
    NODES,
    PROJECTIONS,
    PURGED,
    REVOKE,
    ROLES,
    ROWS,
    STREAMS,
    SYSTEM,
    WANTED,
    Account,
    Row,
)
from runtime.bus.streams import ADAPTED, GROUPED

LIMITED = [role for role in ROLES.values() if role.name not in (MAINTENANCE, SYSTEM)]


def publishers(subject: str) -> set[str]:
    """The roles that may publish on any subject that both filters match."""
    return {role for row in ROWS if overlap(wild(row.subject), subject) for role in row.publish}


def overlap(one: str, other: str) -> bool:
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if "*" not in (a, b) and a != b:
            return False
    return len(left) == len(right)


@pytest.mark.parametrize(
    "subject, who",
    [
        (subjects.events(), {HANDLERS}),
        (subjects.wanted_of(), {HANDLERS}),
        (subjects.LEASES_OF_ALL, {HANDLERS}),
        (subjects.VAULT_KEYS, {HANDLERS}),
        (subjects.CHECKPOINT, {HANDLERS}),
        (subjects.MANAGERS_LEASE, {HANDLERS}),
        (subjects.HEALTH_CHECK, {HANDLERS}),
        (subjects.REPORTS_OF_ALL, {HANDLERS, *NODES}),
        (subjects.parked_of("reports"), {HANDLERS}),
        (subjects.parked_of("wanted"), {HANDLERS}),
        (subjects.parked_of("checkpoints"), {HANDLERS}),
        (subjects.parked_of("holes"), {HANDLERS}),
        (subjects.parked_of("log"), {HANDLERS, PROJECTIONS}),
        (subjects.REFUSALS_OF_ALL, {GATEWAY, AUTHORITY, GUEST_DATA, PROJECTIONS}),
        (subjects.refusal("x"), {GATEWAY, AUTHORITY}),
        (subjects.TOKEN_USES_OF_ALL, {GATEWAY}),
        (REVOKE, {HANDLERS}),
        (MAINTAINED, {AUTHORITY}),
        (ADVISORIES, set()),
        (f"{subjects.PREFIX}.commands.*.vm.guest-ready", {GATEWAY, PROJECTIONS}),
        (f"{subjects.PREFIX}.commands.*.vm.delete", {GATEWAY}),
        (f"{subjects.PREFIX}.commands.system.parked.*", {GATEWAY}),
        (subjects.JOIN, {GATEWAY}),
        (f"{subjects.PREFIX}.nodes.*.asks.*", {GATEWAY}),
        (f"{subjects.PREFIX}.guests.*", {GUEST_DATA}),
        (subjects.guest_seed("*"), {GUEST_DATA}),
    ],
)
def test_who_writes_what(subject: str, who: set[str]) -> None:
    assert publishers(subject) == who


def test_only_handlers_make_consumers_and_only_the_authority_changes_streams() -> None:
    reading = ("STREAM.INFO.", "STREAM.MSG.GET.", "DIRECT.GET.", "CONSUMER.MSG.NEXT.", "CONSUMER.RESET.")
    for row in ROWS:
        call = row.subject.removeprefix(f"{API}.")
        if row.subject.startswith("$") and row.subject != ADVISORIES and not call.startswith(reading):
            assert row.publish == ((AUTHORITY,) if call.startswith("STREAM.UPDATE.") else (HANDLERS,)), row.subject


def test_only_the_authority_and_maintenance_are_in_the_account_of_the_streams() -> None:
    assert {role.name for role in ROLES.values() if role.account is Account.CONTROL} == {AUTHORITY, MAINTENANCE}


def test_nobody_deletes_or_purges_what_is_kept() -> None:
    """But for the stream of an earlier version, whose keys are taken over first, and keys and documents, one by one."""
    every = (*STREAMS, BUCKET)
    for call, allowed in (
        ("STREAM.DELETE", {BUCKET}),
        ("STREAM.PURGE", set(PURGED)),
        ("STREAM.UPDATE", {*PURGED, subjects.VAULT}),  # by the authority
        ("STREAM.MSG.DELETE", {subjects.VAULT, WANTED}),
        ("STREAM.RESTORE", set()),
        ("STREAM.SNAPSHOT", set()),
    ):
        assert {stream for stream in every if publishers(f"{API}.{call}.{stream}")} == allowed, call
    for row in ROWS:
        parts = row.subject.split(".")
        if row.subject.startswith(f"{API}.STREAM.") and row.subject != f"{API}.STREAM.MSG.GET.{BUCKET}":
            assert parts[-1] in every and not {"*", ">"} & set(parts), row.subject


def test_a_node_has_its_own_subjects_only() -> None:
    for row in ROWS:
        if A_NODE in (*row.publish, *row.hear):
            assert NODE in row.subject, row.subject
    role = ROLES[A_NODE]
    for permissions in (publishes(role, "n1"), hears(role, "n1")):
        assert all({"n1", "node-n1", "list-n1"} & set(one.split(".")) for one in permissions), permissions
    assert "STREAM.INFO" not in " ".join(publishes(role, "n1"))


@pytest.mark.parametrize("name", ["*", ">", "n1.>", "a.b", "", "n 1", "$JS", "n" * 200])
def test_a_name_is_no_filter(name: str) -> None:
    with pytest.raises(ValueError):
        publishes(ROLES[A_NODE], name)


def test_nobody_hears_everything() -> None:
    for role in LIMITED:
        node = "n1" if role.name == A_NODE else None
        for subject in hears(role, node):
            told = role.name == AUTHORITY and subject == ADVISORIES
            assert told or not subject.startswith(("$", ">", "*", "_R_", "_INBOX.>")), (role.name, subject)
        for subject in publishes(role, node):
            assert not subject.startswith((">", "*", "$SYS", "$JS.API.>", "$JS.>")), (role.name, subject)
    inboxes = [one for role in LIMITED for one in hears(role, "n1" if role.name == A_NODE else None) if "_INBOX" in one]
    assert len(inboxes) == len(set(inboxes)) == len(LIMITED)
    assert not any(covers(one, other) for one in inboxes for other in inboxes if one != other)


def test_maintenance_and_system_are_in_no_row() -> None:
    assert not any({MAINTENANCE, SYSTEM} & {*row.publish, *row.hear} for row in ROWS)


def test_accounts_import_what_their_roles_use_and_no_more() -> None:
    public = dict.fromkeys(Account, "A")
    for account in Account:
        names = {role.name for role in ROLES.values() if role.account is account}
        for one in imports(account, public):
            assert isinstance(one, dict)
            used = [row for row in ROWS if wild(row.subject) == one["subject"] and names & {*row.publish, *row.hear}]
            assert used, (account, one)


def test_projections_read_no_more_than_they_apply() -> None:
    read = {stream_of(row) for row in ROWS if row.subject.startswith(API) and PROJECTIONS in row.publish}
    assert read == {subjects.EVENTS, subjects.PARKED, subjects.VAULT}
    read = {stream_of(row) for row in ROWS if row.subject.startswith(API) and GATEWAY in row.publish}
    assert read == {subjects.EVENTS, subjects.PARKED, subjects.REFUSALS, subjects.TOKEN_USES, subjects.CHECKPOINTS}
    assert not [row for row in ROWS if row.subject.startswith("$") and GUEST_DATA in row.publish]


def stream_of(row: Row) -> str:
    (found,) = [part for part in row.subject.split(".") if part in STREAMS]
    return found


def test_the_authority_may_adapt_each_stream_that_a_newer_version_changes() -> None:
    """Without the right it would ask for ever, and nothing would be adapted."""
    may = publishes(ROLES[AUTHORITY])
    for stream in ADAPTED | GROUPED:
        for call in ("INFO", "UPDATE"):
            assert f"{API}.STREAM.{call}.{stream}" in may
