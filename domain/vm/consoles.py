"""Who is connected to a VM's console, and who was: its log says so. Nothing else of the VM follows from it."""

from domain.base import Category, Rejected
from domain.vm.commands import CloseConsole, OpenConsole
from domain.vm.events import VmConsoleClosed, VmConsoleOpened
from domain.vm.state import Vm
from domain.vm.values import Phase
from domain.vm.verb import GONE


def decide(vm: Vm, command: OpenConsole | CloseConsole) -> list[VmConsoleOpened | VmConsoleClosed]:
    return [*opened(vm, command)] if isinstance(command, OpenConsole) else [*closed(vm, command)]


def opened(vm: Vm, command: OpenConsole) -> list[VmConsoleOpened]:
    """Once for each session, and never after its end. Raises Rejected where there is nothing to be connected to."""
    if command.session in vm.consoles or command.session in vm.consoles_ended:
        return []
    if vm.phase is Phase.DELETED:
        raise Rejected("vm_deleted", GONE, Category.GONE)
    if vm.phase is not Phase.RUNNING:
        detail = f"the VM is {vm.phase}: only a running one can be connected to; its console-log can be read"
        raise Rejected("wrong_phase", detail)
    return [VmConsoleOpened(at=command.at, session=command.session, console=command.console, force=command.force)]


def closed(vm: Vm, command: CloseConsole) -> list[VmConsoleClosed]:
    """Once for each session, of a VM that was deleted meanwhile as well.

    Also of one that is not known to be open: the command to open it may come late, and means nothing then.
    """
    if command.session in vm.consoles_ended:
        return []
    return [
        VmConsoleClosed(
            at=command.at,
            session=command.session,
            console=command.console,
            seconds=command.seconds,
            why=command.why,
        )
    ]
