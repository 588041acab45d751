"""A property that is computed once."""

from runtime.lazy import lazy


class Counted:
    def __init__(self, given: int) -> None:
        self.given = given
        self.calls = 0

    @lazy
    def double(self) -> int:
        """Twice the number."""
        self.calls += 1
        return 2 * self.given


def test_it_is_computed_once_for_each_object() -> None:
    one, other = Counted(1), Counted(2)
    assert (one.double, one.double, other.double) == (2, 2, 4)
    assert (one.calls, other.calls) == (1, 1)
    assert Counted.double.__doc__ == "Twice the number."


def test_a_known_value_is_not_computed() -> None:
    one = Counted(1)
    one.__dict__["double"] = 7
    assert one.double == 7
    assert one.calls == 0


def test_an_error_is_raised_each_time() -> None:
    class Fails:
        @lazy
        def value(self) -> int:
            raise ValueError("no")

    one = Fails()
    for _ in range(2):
        try:
            _ = one.value
        except ValueError:
            continue
        raise AssertionError("it has a value")
