"""One VM's loop: look, plan, one step, again; until it is as wanted. Then wait for a nudge.

Lanes run side by side, and no two steps of one VM ever do. A nudge carries no news: whatever happened, the lane
looks for itself.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from domain.contract import Power, ReportError, Wanted
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
    Keep,
    Pause,
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
from node_daemon.reconcile.reports import Reports, Seen, seen
from node_daemon.reconcile.resets import Resets
from node_daemon.reconcile.wanted import WantedDocuments
from runtime import logs
from runtime.tasks.backoff import Backoff
from runtime.tasks.tasks import happens

log = logs.get(__name__)

#: Seconds before a failed step is tried again.
RETRY = Backoff(first=0.5, last=30.0)
#: Times that the hypervisor may refuse one of these before that counts as its last word, and what that is called.
TRIES = 5
LAST_WORDS: dict[type[Action], str] = {
    Create: "start_failed",
    Start: "start_failed",
    Pause: "pause_failed",
    Unpause: "resume_failed",
    Suspend: "suspend_failed",
    Restore: "restore_failed",
}
#: What would help, where libvirt's own words cannot say it.
HELP: dict[type[Action], str] = {Restore: "; stop it by force to discard its memory, then start it"}

#: Seconds that the news of a start has before libvirt is busy storing the configuration: guest and host contend for the
#: processors just then.
NEWS_FIRST = 0.05

#: Seconds between looks while the hypervisor does not answer. Its return is a nudge as well.
LOOK_AGAIN = 5.0
#: Seconds between looks while another daemon may work for the node.
LOOK_FOR_LEASE = 0.5

STEP_NAMES: dict[type[Action], str] = {
    Create: "image",
    Start: "start",
    Keep: "domain",
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
    """What went wrong with one generation of the document. A new generation starts with a clean slate."""

    generation: int = -1
    failures: int = 0
    #: how often the hypervisor said no
    refusals: int = 0
    retry_at: float = 0.0
    #: what was being worked on when it failed
    step: str | None = None
    #: set when trying again is pointless
    error: ReportError | None = None

    def failed(self) -> float:
        """Count one more failure; seconds until the next try."""
        self.failures += 1
        delay = RETRY.after(self.failures)
        self.retry_at = time.monotonic() + delay
        return delay

    def wait(self) -> float:
        return self.retry_at - time.monotonic()


class Lane:
    """Runs as long as the VM has a document. No step is taken while it is `unsure` whether the node is still ours."""

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
        unsure: Callable[[], bool] = lambda: False,
    ) -> None:
        self.vm = vm
        self._wanted = wanted
        self._executor = executor
        self._reports = reports
        self._host = host
        self._grace_periods = grace_periods
        self._resets = resets
        self._unsure = unsure
        self._nudged = asyncio.Event()
        self._addresses = Addresses(vm, hypervisor, earlier, changed=self.nudge)
        self._trouble = Trouble()

    def nudge(self) -> None:
        """Something may have happened."""
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
        """Step by step until nothing is to be done now. Seconds until it has to be called again, nudged or not."""
        have: Have | None = None
        while True:
            if self._trouble.generation != want.generation:
                self._trouble = Trouble(want.generation)
            if have is None:
                try:
                    have = await self._executor.look(self.vm)
                except (Unreachable, Refused) as error:
                    log.debug("cannot look", error=str(error))
                    self._reports.show(self.vm, seen(want, Have(vm=self.vm, power=Power.UNKNOWN)))
                    return LOOK_AGAIN
            self._addresses.follow(want.mac, have, self._resets.of(have).resets)
            step = next(iter(plan({self.vm: want}, {self.vm: have}, self._host, self._grace_periods.left)), None)
            if step is None:
                if stale(want, have):
                    log.warning("stale document refused", epoch=want.epoch, generation=want.generation)
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
            if self._unsure():
                return LOOK_FOR_LEASE
            if isinstance(step, Keep):
                await asyncio.sleep(NEWS_FIRST)
            have = await self._carry_out(step, want, have)
            if isinstance(step, Shutdown):
                return min(ASK_AGAIN, self._grace_periods.left(want))
            if isinstance(step, Unpause) and step.stalled:
                return ASK_AGAIN  # where the error lasts it is paused again before we could look
            newest = self._wanted.get(self.vm)
            if newest is None:
                return None
            want = newest

    async def _carry_out(self, step: Action, want: Wanted, have: Have) -> Have | None:
        """The step, done or failed; what there is afterwards, where that is known."""

        def progress(name: str) -> None:
            self._trouble.step = name
            self._show(want, have, step=name)

        try:
            after = await self._executor.carry_out(step, self._newest, progress)
        except Superseded:
            log.info("step dropped: another document is the newest, or another daemon may work for the node")
            return None
        except Permanent as failure:
            self._give_up(failure)
            return None
        except Exception as error:
            if isinstance(error, Refused):
                self._trouble.refusals += 1
                if (last_word := LAST_WORDS.get(type(step))) is not None and self._trouble.refusals >= TRIES:
                    help_ = "" if error.code else HELP.get(type(step), "")
                    self._give_up(Permanent(error.code or last_word, error.detail + help_))
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
        """The newest document, as long as it is ours to go by."""
        return None if self._unsure() else self._wanted.get(self.vm)

    def _give_up(self, failure: Permanent) -> None:
        log.error("cannot be made as wanted", code=failure.code, detail=failure.detail)
        self._trouble.error = ReportError(code=failure.code, detail=failure.detail)

    def _show(self, want: Wanted, have: Have, *, step: str | None = None, error: ReportError | None = None) -> None:
        self._reports.show(self.vm, self._seen(want, have, step=step, error=error))

    def _seen(self, want: Wanted, have: Have, *, step: str | None, error: ReportError | None) -> Seen:
        known, count = self._addresses.known, self._resets.of(have)
        return seen(want, have, addresses=known, count=count, step=step, error=error)
