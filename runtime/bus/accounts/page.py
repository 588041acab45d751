"""docs/bus-access.md, made from the table: `python -m runtime.bus.accounts.page > docs/bus-access.md`."""

import sys

from runtime.bus.accounts.table import ROLES, Row, api, calls, stored

HEAD = """\
# Who may do what on the bus

This page is generated from `runtime/bus/accounts/table.py`, and a test compares the two. What does not stand here is
refused by the server: each account has only these exports and imports, and each credential only these permissions.

`runtime/bus/accounts/authority.py` makes the accounts and the credentials in `<home>/bus`; each process gets its own
file (`NEBULA_NATS_CREDS`). A server of somebody else, with one account, works with `NEBULA_NATS_USER` and
`NEBULA_NATS_PASSWORD`.

- A message gets from one account into another only by an import of this page. An answer to a request is delivered in
  the account that asked, on a subject that the server chooses: a reply subject cannot write into the account
  that answers.
- Only CONTROL has streams. Nobody else creates a consumer, because its delivery subject would be one of CONTROL. The
  gateway and the projections read by direct gets. A node reads two consumers that handlers have created, over its own
  documents only; it can set them back, and knows no other stream's size.
- Where a subject has `{node}`, a node may use its own name only, and so may the guest-data of a host that joined: it
  may use these subjects, and not those for guests of any node. Only guest-data of the platform's own host, which also
  serves simulated nodes, may use the latter.
- Each credential hears its own inboxes only: `_INBOX.<role>.>`, for a node `_INBOX.node-<name>.>`,
  for the guest-data of a host that joined `_INBOX.guest-data-<name>.>`.
- A node, `simulation` and `authority` send one answer to each request that they hear, and no other message to an inbox.
- In other accounts than CONTROL the JetStream API begins with `$JS.nebula.API` instead of `$JS.API`.
- Credentials of roles are valid for 30 days and are renewed ten days before. A revoked one ends its connections. A
  connection changes to the renewed credential by itself, in a moment in which no request is on its way.
"""

MAINTENANCE = (
    "`maintenance` may use every subject of CONTROL, and `system` every one of SYS.",
    "",
    "What `maintenance` does is recorded: each call of JetStream that changes something, and was made in CONTROL",
    "itself, becomes an event `BusMaintained` of the log, with the actor `system:maintenance`, the credential, its",
    "address, and what the servers answered (`nebula events --kind maintenance`). The authority hears of it from the",
    "servers: a call while it does not run is in no record. Servers do not tell of messages that `maintenance`",
    "publishes itself, of acknowledgements, and of the reset of a consumer.",
)


def page() -> str:
    lines = [HEAD, "## Credentials", "", "| credential | account | what for |", "|---|---|---|"]
    lines += [f"| `{role.name}` | {role.account} | {role.why} |" for role in ROLES.values()]
    for title, rows in (
        ("Requests and messages that are not stored", calls()),
        ("Messages that a stream stores", stored()),
        ("Calls of JetStream", api()),
    ):
        heads = ("subject", "account", "publishes", "hears", "answers", "why")
        lines += ["", f"## {title}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [_line(row) for row in rows]
    lines += ["", *MAINTENANCE]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    publish, hear = (", ".join(roles) or "-" for roles in (row.publish, row.hear))
    return f"| `{row.subject}` | {row.home} | {publish} | {hear} | {row.answers} | {row.why} |"


if __name__ == "__main__":
    sys.stdout.write(page())
