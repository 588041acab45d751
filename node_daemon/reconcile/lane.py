"""The loop of one VM: look, plan, take one step, and repeat until the VM is as wanted. Then wait for a nudge.

The lanes of several VMs run concurrently; the steps of one VM never do. A nudge carries no data: the lane always looks
at the hypervisor again.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from domain.contract import Desired, Power, ReportError, Wanted
from node_daemon.failure import Permanent, Superseded, Temporary
from node_daemon.hypervisor.hypervisor import Have, Hypervisor, Refused, Unreachable
from node_daemon.network.addresses import Addresses, EarlierBoots
from node_daemon.reconcile.executor import ASK_AGAIN, Executor
from node_daemon.reconcile.grace_periods import GracePeriods
from node_daemon.reconcile.plan import (
    Action,
    Create,
    Destroy,
    Discard,
    Host,
    Pause,
    Persist,
    Refuse,
    Remove,
    Restore,
    Shutdown,
    Start,
    Suspend,
    Unpause,
    plan,
    stale,
)
from node_daemon.reconcile.reports import Reports, vm_status
from node_daemon.reconcile.resets import Resets
from node_daemon.reconcile.wanted import WantedDocuments
from runtime import logs
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds before a failed step is tried again.
RETRY = Backoff(first=0.5, last=30.0)
#: After so many refusals by the hypervisor a step counts as failed for good, with the code of FINAL_CODES.
TRIES = 5
FINAL_CODES: dict[type[Action], str] = {
    Create: "start_failed",
    Start: "start_failed",
    Pause: "pause_failed",
    Unpause: "resume_failed",
    Suspend: "suspend_failed",
    Restore: "restore_failed",
}
#: What the caller can do, appended to the message of libvirt.
HELP: dict[type[Action], str] = {Restore: "; stop it by force to discard its memory, then start it"}

#: Seconds to wait before a domain is made persistent, so that the report of its start is sent first. Guest and host
#: compete for the CPUs at that time. A newer document ends the wait.
REPORT_FIRST = 0.05

#: Seconds between looks while the hypervisor does not answer. A new connection to it is a nudge as well.
LOOK_AGAIN = 5.0
#: Seconds between checks of the lease while it is in doubt.
CHECK_LEASE = 0.5

STEP_NAMES: dict[type[Action], str] = {
    Create: "image",
    Start: "start",
    Persist: "domain",
    Shutdown: "stop",
    Pause: "pause",
    Unpause: "resume",
    Suspend: "suspend",
    Restore: "resume",
    Discard: "stop",
    Destroy: "stop",
    Remove: "remove",
}


@dataclass
class Trouble:
    """The failures of one generation of the document. A new generation starts without any."""

    generation: int = -1
    failures: int = 0
    #: number of refusals by the hypervisor
    refusals: int = 0
    #: when the step is tried again, in seconds of the monotonic clock
    retry_at: float = 0.0
    #: the step that failed
    step: str | None = None
    #: set when a retry does not help
    error: ReportError | None = None

    def failed(self) -> float:
        """Count one more failure. Returns the seconds until the next try."""
        self.failures += 1
        delay = RETRY.after(self.failures)
        self.retry_at = time.monotonic() + delay
        return delay

    def wait(self) -> float:
        """Seconds until the next try; 0 or less when it is due."""
        return self.retry_at - time.monotonic()


class Lane:
    """Runs as long as the VM has a document. It takes no step while the lease of the node is `in_doubt`."""

    def __init__(
        self,
        vm: str,
        wanted: WantedDocuments,
        executor: Executor,
        hypervisor: Hypervisor,
        reports: Reports,
        host: Host,
        grace_periods: GracePeriods,
        resets: Resets,
        earlier: EarlierBoots,
        in_doubt: Callable[[], bool] = lambda: False,
    ) -> None:
        self.vm = vm
        self._wanted = wanted
        self._executor = executor
        self._reports = reports
        self._host = host
        self._grace_periods = grace_periods
        self._resets = resets
        self._in_doubt = in_doubt
        self._nudged = asyncio.Event()
        self._addresses = Addresses(vm, hypervisor, earlier, changed=self.nudge)
        self._trouble = Trouble()

    def nudge(self) -> None:
        """Make the lane look again."""
        self._nudged.set()

    async def run(self) -> None:
        structlog.contextvars.bind_contextvars(vm=self.vm)
        try:
            while (want := self._wanted.get(self.vm)) is not None:
                self._nudged.clear()
                pause = await self._reconcile(want)
                await happens(self._nudged, pause)
        finally:
            self._addresses.stop()

    async def _reconcile(self, want: Wanted) -> float | None:
        """Take steps until none is due now. Returns the seconds until it must be called again; None: after a nudge."""
        have: Have | None = None
        while True:
            if self._trouble.generation != want.generation:
                self._trouble = Trouble(want.generation)
            if have is None:
                try:
                    have = await self._executor.look(self.vm)
                except (Unreachable, Refused) as error:
                    log.debug("cannot look", error=str(error))
                    self._reports.show(self.vm, vm_status(want, Have(vm=self.vm, power=Power.UNKNOWN)))
                    return LOOK_AGAIN
            self._addresses.follow(want.mac, have, self._resets.of(have).resets)
            step = next(iter(plan({self.vm: want}, {self.vm: have}, self._host, self._grace_periods.remaining)), None)
            if step is None:
                if stale(want, have):
                    log.warning("ignoring a stale document", epoch=want.epoch, generation=want.generation)
                if want.force_after is None:
                    self._grace_periods.forget(self.vm)
                if have.power is Power.ABSENT:
                    self._resets.forget(self.vm)
                    self._addresses.forget()
                self._trouble = Trouble(want.generation)
                self._show(want, have)
                return None
            if isinstance(step, Refuse):
                self._show(want, have, error=ReportError(code=step.code, detail=step.detail))
                return None
            if self._trouble.error is not None:
                self._show(want, have, error=self._trouble.error)
                return None
            self._show(want, have, step=self._trouble.step or STEP_NAMES[type(step)])
            if (wait := self._trouble.wait()) > 0:
                return wait
            if self._in_doubt():
                return CHECK_LEASE
            if isinstance(step, Persist) and want.desired is Desired.ON:
                await self._unchanged(want, REPORT_FIRST)
            have = await self._carry_out(step, want, have)
            if isinstance(step, Shutdown):
                return min(ASK_AGAIN, self._grace_periods.remaining(want))
            if isinstance(step, Unpause) and step.stalled:
                return ASK_AGAIN  # if the I/O error persists, QEMU pauses the domain again before the next look
            newest = self._wanted.get(self.vm)
            if newest is None:
                return None
            want = newest

    async def _unchanged(self, want: Wanted, seconds: float) -> None:
        """Wait so long, or until there is a newer document."""
        until, nudged = time.monotonic() + seconds, self._nudged.is_set()
        while self._wanted.get(self.vm) == want and (left := until - time.monotonic()) > 0:
            self._nudged.clear()
            nudged |= await happens(self._nudged, left)
        if nudged:
            self._nudged.set()  # whoever nudged expects a look after this step

    async def _carry_out(self, step: Action, want: Wanted, have: Have) -> Have | None:
        """Carry out the step. Returns the new state of the VM; None if it is unknown or the step failed."""

        def progress(name: str) -> None:
            self._trouble.step = name
            self._show(want, have, step=name)

        try:
            after = await self._executor.carry_out(step, self._newest, progress)
        except Superseded:
            log.info("step dropped: a newer document has arrived, or the lease of the node is in doubt")
            return None
        except Permanent as failure:
            self._give_up(failure)
            return None
        except Exception as error:
            if isinstance(error, Refused):
                self._trouble.refusals += 1
                if (code := FINAL_CODES.get(type(step))) is not None and self._trouble.refusals >= TRIES:
                    help_ = "" if error.code else HELP.get(type(step), "")
                    self._give_up(Permanent(error.code or code, error.detail + help_))
                    return None
            delay = self._trouble.failed()
            expected = isinstance(error, Refused | Unreachable | Temporary | OSError)
            log.warning(
                "step failed",
                step=type(step).__name__.lower(),
                error=str(error) or repr(error),
                retry_in=round(delay, 2),
                exc_info=not expected,
            )
            return None
        self._trouble = Trouble(want.generation)
        return after

    def _newest(self) -> Wanted | None:
        """The newest document; None if there is none or the lease is in doubt."""
        return None if self._in_doubt() else self._wanted.get(self.vm)

    def _give_up(self, failure: Permanent) -> None:
        log.error("the VM cannot reach its desired state", code=failure.code, detail=failure.detail)
        self._trouble.error = ReportError(code=failure.code, detail=failure.detail)

    def _show(self, want: Wanted, have: Have, *, step: str | None = None, error: ReportError | None = None) -> None:
        known, count = self._addresses.known, self._resets.of(have)
        self._reports.show(self.vm, vm_status(want, have, addresses=known, count=count, step=step, error=error))
