"""A command that a caller requested, as it is sent to handlers."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_core import to_json

from domain.contract import Json
from gateway.commands.actions import Action
from gateway.state import Caller


@dataclass(frozen=True, slots=True)
class Requested:
    """One requested command: the action, the resource, the caller.

    `key`: the id that is derived from the caller's key; only for commands that create a resource. `operation` and
    `fingerprint` are empty if the command is not an operation.
    """

    action: Action
    project: str
    resource: str
    key: str | None
    operation: str
    fingerprint: str
    args: Mapping[str, Json]
    caller: Caller

    def payload(self) -> bytes:
        """A `CommandRequest` as JSON. Its values were checked before, so no model is needed."""
        identity = self.caller.identity
        context = {
            "actor": identity.actor,
            "credential": identity.credential,
            "grants": sorted(identity.access.grants, key=lambda grant: (grant.project or "", grant.role)),
            "read_only": identity.access.read_only,
            "request": self.caller.request,
            "operation": self.operation or None,
            "fingerprint": self.fingerprint or None,
            "key": self.key,
            "traceparent": self.caller.traceparent,
        }
        return to_json({"args": {self.action.kind: self.resource, **self.args}, "context": context})
