"""Programs against the log, as Hypothesis makes them up. `both.py` does them on the real one and on the model.

A step is data. Those that break something do it to the real one only: what comes of an append, and what is read, must
be as if nothing had happened.
"""

from dataclasses import dataclass
from enum import Enum

from hypothesis import strategies as st

from eventstore.log.envelope import Ref
from eventstore.log.group import ALONE
from eventstore.log.store import PAGE
from runtime import subjects

REFS = [
    Ref("red", "project", "a"),
    Ref("red", "project", "b"),
    Ref("red", "tag", "a"),
    Ref("blue", "tag", "c"),
    Ref("blue", "vm", "c"),
    Ref("blue", "project", "a"),  # the first one's id: whoever comes first has it
]
FILTERS = [
    None,
    subjects.events(),
    subjects.events("red"),
    subjects.events(kind="project"),
    subjects.events(id_="c"),
    subjects.events("blue", "tag"),
    subjects.events("red", None, "a"),
    subjects.events(kind="project", id_="a"),
    REFS[1].subject,
    subjects.events("nobody"),
]
AHEAD = -1


class Fault(Enum):
    NONE = "none"
    LOSE_REQUEST = "the request is lost with the line"
    LOSE_ANSWER = "the answer is lost with the line"
    KILL = "the server is killed"


@dataclass(frozen=True)
class Write:
    """`count` events on a tip that is `age` events old (AHEAD: one that the log never had)."""

    ref: Ref
    age: int
    count: int
    alone: bool


@dataclass(frozen=True)
class Append:
    writes: tuple[Write, ...]
    client: int
    fault: Fault
    delay: float


@dataclass(frozen=True)
class Race:
    """Several appends at once on the newest tip of one aggregate, among others that concern nobody, so many that they
    are stored in groups; and in the midst of those (`again`) one that was stored before.
    """

    ref: Ref
    others: tuple[Ref, ...]
    rivals: int
    company: int
    again: int
    kill_after: float | None


@dataclass(frozen=True)
class Again:
    """What was acknowledged is sent once more."""

    which: int
    client: int


@dataclass(frozen=True)
class Outage:
    """An append while the server is away, given up, and sent again when it is back."""

    write: Write


@dataclass(frozen=True)
class Restart:
    kill: bool


@dataclass(frozen=True)
class DeafFeeds:
    """The feeds' line goes deaf while an event is appended: that event was sent, and never came.

    Then the line is `cut`, or it goes on as if nothing had happened, with `more` to come at once or only heartbeats.
    """

    ref: Ref
    cut: bool
    more: bool


@dataclass(frozen=True)
class Read:
    after: int
    filter_: str | None
    limit: int


@dataclass(frozen=True)
class History:
    """`until` is so far from the aggregate's event of that number."""

    ref: Ref
    number: int | None
    off: int


@dataclass(frozen=True)
class Follow:
    after: int
    filters: tuple[str, ...] | None


Step = Append | Race | Again | Outage | Restart | DeafFeeds | Read | History | Follow

refs = st.sampled_from(REFS)
clients = st.integers(0, 1)
positions = st.one_of(st.integers(0, 12), st.integers(0, 60), st.just(10**9))
moments = st.floats(0, 0.01)
company = st.sampled_from([0, 2, 12, 24])
places = st.integers(0, 1).map(lambda n: n + ALONE + 1)  # the first ones that are not sent alone


def writes(ref: st.SearchStrategy[Ref] = refs) -> st.SearchStrategy[Write]:
    ages = st.sampled_from([0, 0, 0, 0, 0, 1, 2, AHEAD])
    return st.builds(Write, ref, ages, st.sampled_from([1, 1, 1, 2, 3, 0]), st.sampled_from([False, False, True]))


def appends(faults: st.SearchStrategy[Fault]) -> st.SearchStrategy[Append]:
    several = st.lists(writes(), max_size=3, unique_by=lambda write: write.ref).map(tuple)
    return st.builds(Append, several, clients, faults, moments)


some_filters = st.one_of(
    st.none(),
    st.sampled_from([(f,) for f in FILTERS if f]),
    st.lists(refs.map(lambda ref: ref.subject), min_size=2, max_size=3, unique=True).map(tuple),
)
plain = st.one_of(
    appends(st.just(Fault.NONE)),
    appends(st.just(Fault.NONE)),
    st.builds(Again, st.integers(0, 20), clients),
    st.builds(Read, positions, st.sampled_from(FILTERS), st.sampled_from([1, 2, 5, PAGE])),
    st.builds(History, refs, st.none() | st.integers(0, 9), st.integers(-1, 1)),
    st.builds(Follow, positions, some_filters),
    st.builds(
        Race,
        refs,
        st.lists(refs, max_size=2, unique=True).map(tuple),
        st.integers(2, 4),
        company,
        places,
        st.none(),
    ),
)
disturbed = st.one_of(
    appends(st.sampled_from([Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.KILL])),
    st.builds(Race, refs, st.just(()), st.integers(2, 3), company, places, moments),
    st.builds(Outage, writes()),
    st.builds(Restart, st.booleans()),
    st.builds(DeafFeeds, refs, st.booleans(), st.booleans()),
)
programs = st.lists(st.one_of(plain, plain, plain, plain, disturbed), min_size=8, max_size=30)
