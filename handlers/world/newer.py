"""The aggregates that have an event of a newer version. This process does not know their states, so it decides nothing
about them: handlers of the newer version do.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from domain.base import Foreign
from eventstore.log.envelope import Recorded, Ref


class NewerVersion(Exception):
    """A decision depends on an aggregate that has an event of a newer version."""

    def __init__(self, ref: Ref, type_: str) -> None:
        super().__init__(f"{ref.kind} {ref.id} has an event of a newer version ({type_}): upgrade this process")


class Newer:
    """Collects these aggregates, each with the type of such an event."""

    def __init__(self) -> None:
        self._types: dict[Ref, str] = {}
        self.since: datetime | None = None
        """When this process met the first of them."""

    def __bool__(self) -> bool:
        return bool(self._types)

    def note(self, recorded: Recorded) -> None:
        """Note the aggregate of an event if this version does not know the event."""
        if isinstance(recorded.event, Foreign):
            self._types.setdefault(recorded.ref, recorded.type)
            self.since = self.since or datetime.now(UTC)

    def has(self, ref: Ref) -> bool:
        return ref in self._types

    def check(self, refs: Iterable[Ref]) -> None:
        """Raises NewerVersion for the first of these aggregates that has such an event."""
        if self._types:
            for ref in refs:
                if (type_ := self._types.get(ref)) is not None:
                    raise NewerVersion(ref, type_)

    @property
    def error(self) -> str | None:
        """What operators have to know; None if there is nothing."""
        if not self._types:
            return None
        types = ", ".join(sorted(set(self._types.values()))[:3])
        many = len(self._types)
        return f"{many} resources have events of a newer version ({types}): upgrade this process, it leaves them alone"
