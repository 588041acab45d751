"""The result of a verification: what was read, and what is wrong."""

from dataclasses import asdict, dataclass, field
from typing import Any

from eventstore.log.envelope import GENESIS

MOST_FINDINGS = 1000
"""Maximum number of findings that are kept; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. `code` is for programs, `detail` for people.

    `position`: where in the log; if two events contradict each other, that of the earlier one, and `detail` names both.
    `aggregate`: the subject, if the fault concerns one. `message`: the position of a malformed message, else 0.
    """

    code: str
    position: int
    detail: str
    aggregate: str | None = None
    message: int = 0

    def __str__(self) -> str:
        where = f"position {self.position}" + (f" ({self.aggregate})" if self.aggregate else "")
        return f"{where}: {self.detail} [{self.code}]"


@dataclass
class Report:
    """The result of a verification. `proven`: the last position that a valid signature covers. `macs_checked`: whether
    the MACs of the events were checked. `before`: the last position that an earlier verification covers, at the time
    `verified_at`; these events were not read again, and its findings are repeated. `doubt`: why an earlier verification
    did not count.
    """

    what: str
    first: int = 0
    last: int = 0
    events: int = 0
    aggregates: int = 0
    checkpoints: int = 0
    proven: int = 0
    digest: str = GENESIS
    macs_checked: bool = False
    before: int = 0
    verified_at: str | None = None
    doubt: str | None = None
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    @property
    def genuine(self) -> bool:
        """Whether the only findings are malformed messages that are really part of the log.

        A message with a wrong version or chain may also be a sign of tampering. It is accepted only if a valid
        signature covers it.
        """
        return not self.more_findings and all(
            f.message and (f.code in ("shape", "unreadable", "forged", "no_mac") or f.message <= self.proven)
            for f in self.findings
        )

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, *findings: Finding) -> None:
        for finding in findings:
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(finding)
            else:
                self.more_findings += 1

    def document(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}
