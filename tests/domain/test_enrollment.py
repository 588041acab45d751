"""The enrollment of a node: one token, one hour, one host."""

from typing import Any

import pytest

from domain.base import Rejected
from domain.enrollment import (
    Enrollment,
    EnrollmentRevoked,
    EnrollmentWithdrawn,
    IssueJoinToken,
    JoinNode,
    JoinTokenIssued,
    JoinTokenReused,
    NodeJoined,
    RevokeEnrollment,
    WithdrawEnrollment,
    decide,
    evolve,
    fingerprint_of,
)
from tests.domain.story import at, uid

TOKEN, OTHER = "aa" * 32, "bb" * 32
KEY, OTHER_KEY = "U" + "A" * 55, "U" + "B" * 55


def issue(number: int = 10, seconds: int = 0, digest: str = TOKEN, minutes: int = 60) -> IssueJoinToken:
    return IssueJoinToken(
        enrollment="n1", at=at(seconds), operation=uid(number), fingerprint=f"f{number}", digest=digest, minutes=minutes
    )


def join(seconds: int = 1, digest: str = TOKEN, key: str = KEY, guest: str | None = None) -> JoinNode:
    return JoinNode(enrollment="n1", at=at(seconds), digest=digest, public_key=key, guest_key=guest)


def revoke(number: int = 20, seconds: int = 2) -> RevokeEnrollment:
    return RevokeEnrollment(enrollment="n1", at=at(seconds), operation=uid(number), fingerprint=f"f{number}")


def withdraw(seconds: int = 3, retired: int = 3) -> WithdrawEnrollment:
    return WithdrawEnrollment(enrollment="n1", at=at(seconds), retired_at=at(retired))


def after(*commands: Any) -> Enrollment | None:
    state: Enrollment | None = None
    for command in commands:
        for event in decide(state, command):
            state = evolve(state, event)
    return state


def outcome(*commands: Any) -> Any:
    """The types of the events of the last command, or the code of its refusal."""
    state = after(*commands[:-1])
    try:
        return [type(event) for event in decide(state, commands[-1])]
    except Rejected as refusal:
        return refusal.code


def test_a_host_joins_with_its_token_once() -> None:
    assert outcome(issue()) == [JoinTokenIssued]
    assert outcome(issue(), join()) == [NodeJoined]
    state = after(issue(), join())
    assert state is not None and state.token is None
    assert state.valid_key is not None and state.valid_key.public_key == KEY


def test_the_key_of_guest_data_comes_and_goes_with_the_nodes() -> None:
    guest, later = "U" + "C" * 55, "U" + "D" * 55
    assert outcome(issue(), join(guest=guest), join(guest=guest)) == []
    assert outcome(issue(), join(guest=guest), join(guest=later)) == "join_token_used"
    assert outcome(issue(), join(guest=KEY)) == "node_key_used"
    again = (issue(), join(guest=guest), issue(11, digest=OTHER))
    assert outcome(*again, join(digest=OTHER, key=OTHER_KEY, guest=guest)) == "node_key_used"
    assert outcome(*again, join(digest=OTHER, key=guest)) == "node_key_used"
    state = after(*again, join(digest=OTHER, key=OTHER_KEY, guest=later))
    assert state is not None and state.valid_key is not None
    assert state.revoked == (KEY, guest) and state.valid_key.all == (OTHER_KEY, later)


def test_a_second_use_is_refused_and_noted_once() -> None:
    again = join(2, key=OTHER_KEY)
    assert outcome(issue(), join(), again) == [JoinTokenReused]
    assert outcome(issue(), join(), again, again) == "join_token_used"
    state = after(issue(), join(), again)
    assert state is not None and state.valid_key is not None and state.valid_key.public_key == KEY


def test_a_repeat_by_the_same_key_is_no_second_use_within_the_hour() -> None:
    assert outcome(issue(), join(), join(2)) == []
    assert outcome(issue(), join(), join(3600)) == "join_token_used"


def test_a_repeat_after_a_revocation_is_refused() -> None:
    assert outcome(issue(), join(), revoke(), join(3)) == "join_token_used"


@pytest.mark.parametrize(
    "seconds, expected", [(59, [NodeJoined]), (60, "join_token_expired"), (4000, "join_token_expired")]
)
def test_a_token_expires(seconds: int, expected: object) -> None:
    assert outcome(issue(minutes=1), join(seconds)) == expected


def test_a_token_is_of_one_node() -> None:
    assert outcome(join()) == "join_token_invalid"
    assert outcome(issue(), join(digest=OTHER)) == "join_token_invalid"


def test_a_new_token_replaces_the_one_that_waits() -> None:
    assert outcome(issue(10), issue(11, digest=OTHER), join()) == "join_token_invalid"
    assert outcome(issue(10), issue(11, digest=OTHER), join(digest=OTHER)) == [NodeJoined]


def test_a_used_token_cannot_be_issued_again() -> None:
    assert outcome(issue(10), join(), issue(11)) == "join_token_used"


def test_another_join_replaces_the_key() -> None:
    rejoined = (issue(10), join(), issue(11, digest=OTHER))
    state = after(*rejoined)
    assert state is not None and state.valid_key is not None and state.valid_key.public_key == KEY
    events = decide(state, join(digest=OTHER, key=OTHER_KEY))
    assert [event.replaced for event in events if isinstance(event, NodeJoined)] == [fingerprint_of(KEY)]
    state = after(*rejoined, join(digest=OTHER, key=OTHER_KEY))
    assert state is not None and state.valid_key is not None and state.valid_key.public_key == OTHER_KEY
    assert state.revoked == (KEY,)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_an_earlier_key_cannot_come_back(key: str) -> None:
    joined = (issue(10), join(), issue(11, digest=OTHER), join(digest=OTHER, key=OTHER_KEY))
    assert outcome(*joined, issue(12, digest="cc" * 32), join(digest="cc" * 32, key=key)) == "node_key_used"


def test_a_revocation_ends_key_and_token() -> None:
    assert outcome(issue(), join(), revoke()) == [EnrollmentRevoked]
    state = after(issue(10), join(), issue(11, digest=OTHER), revoke())
    assert state is not None and state.valid_key is None and state.token is None
    assert outcome(issue(10), join(), issue(11, digest=OTHER), revoke(), join(4, digest=OTHER)) == "join_token_invalid"


def test_a_revocation_of_nothing_is_refused() -> None:
    assert outcome(revoke()) == "enrollment_not_found"
    assert outcome(issue(), revoke(20), revoke(20)) == []
    assert outcome(issue(), revoke(20), revoke(21)) == "nothing_to_revoke"


def test_a_retirement_ends_what_was_there_before_it() -> None:
    assert outcome(withdraw()) == []
    assert outcome(issue(seconds=1), withdraw(retired=2)) == [EnrollmentWithdrawn]
    assert outcome(issue(seconds=1), join(1), withdraw(retired=2)) == [EnrollmentWithdrawn]
    assert outcome(issue(seconds=1), join(1), withdraw(), withdraw()) == []
    assert outcome(issue(seconds=1), withdraw(retired=2), join(4)) == "join_token_invalid"
    assert outcome(issue(seconds=3), withdraw(retired=2)) == []
    assert outcome(issue(seconds=1), join(5), withdraw(seconds=6, retired=2)) == [EnrollmentWithdrawn]
    assert outcome(issue(seconds=3), join(5), withdraw(seconds=6, retired=2)) == []


def test_a_token_that_was_issued_after_the_retirement_stays() -> None:
    state = after(issue(10), join(), issue(11, seconds=5, digest=OTHER), withdraw(seconds=6))
    assert state is not None and state.valid_key is None
    assert state.token is not None and state.token.digest == OTHER


def test_a_repeat_of_an_issue_changes_nothing() -> None:
    assert outcome(issue(10), issue(10)) == []
