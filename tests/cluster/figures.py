"""What a run found."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figures:
    """`unavailable`: for each class, seconds without an accepted command (and without an answered list) each time."""

    seed: int
    unavailable: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    accepted: int = 0
    again: int = 0
    #: seconds from the first sending of a command to its answer
    slowest: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    events: int = 0
    vms: int = 0
    quiet_after: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether all was compared, and every promise was kept."""
        return self.events > 0 and not self.violations

    def document(self) -> dict[str, Any]:
        return {
            "ok": not self.violations,
            "seed": self.seed,
            "faults": sum(map(len, self.unavailable.values())),
            "commands_accepted": self.accepted,
            "sent_again": self.again,
            "slowest_command_seconds": round(self.slowest, 1),
            "killed": dict(sorted(self.kills.items())),
            "events": self.events,
            "quiet_after_seconds": round(self.quiet_after, 1),
            "unavailable_seconds": {
                name: {
                    "times": len(found),
                    "commands_p50": round(sorted(one for one, _ in found)[len(found) // 2], 1),
                    "commands_max": round(max(one for one, _ in found), 1),
                    "reads_max": round(max(other for _, other in found), 1),
                }
                for name, found in sorted(self.unavailable.items())
            },
            "violations": self.violations[:100],
        }
