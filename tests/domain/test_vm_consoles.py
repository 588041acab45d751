"""Who is connected to a VM's console stands in its log, and changes nothing else of it."""

from typing import Any

import pytest

from domain import vm
from domain.base import Category, Rejected
from domain.vm import CloseConsole, Console, OpenConsole, Phase, Vm, VmConsoleClosed, VmConsoleOpened
from domain.vm.evolution import MOST_CONSOLES
from domain.vm.kind import VM
from tests.domain.lives import ALIVE, ID, LIVES, RUNNING, given, lived
from tests.domain.story import at, stored

ONE, OTHER = "0" * 31 + "1", "0" * 31 + "2"


def opens(session: str = ONE, seconds: int = 400, **more: Any) -> OpenConsole:
    return OpenConsole(vm=ID, at=at(seconds), session=session, **{"console": Console.SERIAL, **more})


def closes(session: str = ONE, seconds: int = 460, **more: Any) -> CloseConsole:
    told = {"console": Console.SERIAL, "seconds": 59.5, "why": "the client has left", **more}
    return CloseConsole(vm=ID, at=at(seconds), session=session, **told)


OPENED = VmConsoleOpened(at=at(400), session=ONE, console=Console.SERIAL, force=True)
CLOSED = VmConsoleClosed(at=at(460), session=ONE, console=Console.SERIAL, seconds=59.5, why="the client has left")


def shown(vm: Vm) -> object:
    """What rows hold of it."""
    return VM.stored.dump_python(vm)


def test_each_connection_is_opened_and_closed_once() -> None:
    first = given(RUNNING).when(opens(force=True)).then(VmConsoleOpened)
    assert first.events == [OPENED]
    first.and_when(opens(force=True)).then_nothing()
    last = first.and_when(closes()).then(VmConsoleClosed)
    assert last.events == [CLOSED]
    last.and_when(closes()).then_nothing()


def test_one_that_comes_after_its_end_is_never_opened() -> None:
    """Whoever closes a session may not know whether it was recorded that it was opened."""
    ended = given(RUNNING).when(closes()).then(VmConsoleClosed)
    ended.and_when(opens()).then_nothing()
    ended.and_when(opens(OTHER)).then(VmConsoleOpened)


@pytest.mark.parametrize("life", ALIVE)
def test_only_a_running_vm_can_be_connected_to(life: str) -> None:
    before = lived(LIVES[life][0])
    if before.phase is Phase.RUNNING:
        assert vm.decide(before, opens())
        return
    with pytest.raises(Rejected, match=f"the VM is {before.phase}") as caught:
        vm.decide(before, opens())
    assert (caught.value.code, caught.value.category) == ("wrong_phase", Category.CONFLICT)


def test_of_a_deleted_vm_connections_end_and_none_begin() -> None:
    gone = [*RUNNING, opens(), *LIVES["deleted"][0][len(RUNNING) :]]
    assert lived(gone).phase is Phase.DELETED
    assert [type(event) for event in vm.decide(lived(gone), closes())] == [VmConsoleClosed]
    with pytest.raises(Rejected) as caught:
        vm.decide(lived(gone), opens(OTHER))
    assert (caught.value.code, caught.value.category) == ("vm_deleted", Category.GONE)


def test_they_change_nothing_of_the_vm() -> None:
    before = lived(RUNNING)
    opened = vm.evolve(before, stored(OPENED))
    closed = vm.evolve(opened, stored(CLOSED))
    assert opened is not None
    assert shown(opened) == shown(before), "no field that anybody is shown, nor the time of the last change"
    assert closed is not None
    assert shown(closed) == shown(before)
    assert not closed.consoles


def test_connections_of_killed_gateways_do_not_pile_up() -> None:
    state: Any = lived(RUNNING)
    for number in range(MOST_CONSOLES + 1):
        (event,) = vm.decide(state, opens(f"{number:032x}"))
        state = vm.evolve(state, event)
    assert len(state.consoles) == MOST_CONSOLES
    for number in range(MOST_CONSOLES + 1):
        (event,) = vm.decide(state, closes(f"{number:032x}"))
        state = vm.evolve(state, event)
    assert (state.consoles, len(state.consoles_ended)) == ((), MOST_CONSOLES)
