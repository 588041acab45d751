"""Connections to a VM's console. They are recorded in the log, and change nothing else of the VM."""

from domain.base import Category, Rejected
from domain.vm.commands import CloseConsole, OpenConsole
from domain.vm.events import VmConsoleClosed, VmConsoleOpened
from domain.vm.state import Vm
from domain.vm.values import Phase
from domain.vm.verb import WAS_DELETED


def decide(vm: Vm, command: OpenConsole | CloseConsole) -> list[VmConsoleOpened | VmConsoleClosed]:
    return [*opened(vm, command)] if isinstance(command, OpenConsole) else [*closed(vm, command)]


def opened(vm: Vm, command: OpenConsole) -> list[VmConsoleOpened]:
    """One event for each session, and none after its end. Raises Rejected if the VM does not run."""
    if command.session in vm.consoles or command.session in vm.consoles_ended:
        return []
    if vm.phase is Phase.DELETED:
        raise Rejected("vm_deleted", WAS_DELETED, Category.GONE)
    if vm.phase is not Phase.RUNNING:
        detail = f"the VM is {vm.phase}: only a running VM has a console; start or resume it, or read its console-log"
        raise Rejected("wrong_phase", detail)
    return [VmConsoleOpened(at=command.at, session=command.session, console=command.console, force=command.force)]


def closed(vm: Vm, command: CloseConsole) -> list[VmConsoleClosed]:
    """One event for each session, also if the VM was deleted in the meantime.

    A session may be closed before its command to open it arrives; that command is then ignored.
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
