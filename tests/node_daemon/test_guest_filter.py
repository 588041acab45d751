"""A start whose filter cannot be made at the moment is tried again; any other error is not."""

from typing import Any

import libvirt
import pytest

from node_daemon.hypervisor import guest_filter


def failure(source: int) -> Any:
    """An internal error of a part of libvirt."""
    error = libvirt.libvirtError("it failed")
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, source, "it failed", 2, None, None, None, 0, 0)
    return error


BUSY, OTHER = failure(libvirt.VIR_FROM_NWFILTER), failure(libvirt.VIR_FROM_QEMU)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_filter, "PAUSES", (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("errors", "tries", "raised"),
    [([], 1, None), ([BUSY], 2, None), ([BUSY] * 3, 4, None), ([BUSY] * 4, 4, BUSY), ([OTHER], 1, OTHER)],
)
def test_a_start_is_tried_again(errors: list[Any], tries: int, raised: Any) -> None:
    left, made = list(errors), []

    def start() -> None:
        made.append(1)
        if left:
            raise left.pop(0)

    if raised is None:
        guest_filter.patiently(start)
    else:
        with pytest.raises(libvirt.libvirtError) as found:
            guest_filter.patiently(start)
        assert found.value is raised
    assert len(made) == tries
