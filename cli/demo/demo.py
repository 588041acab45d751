"""`nebula demo`: one real VM's whole life, through HTTP alone, with checks that it happened.

Each step does what it says or ends the demo; in the end the VM is always deleted and the platform stopped.
"""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from cli.client import output, waiting
from cli.client.client import path
from cli.client.errors import CliError, Interrupted
from cli.commands import events
from cli.demo.demo_steps import STEPS, Demo, DemoSettings, say
from runtime.settings import read

#: How much of the log and of the serial console is shown when a step fails.
LAST_EVENTS = 12
LAST_WORDS = 30


def main(*, cluster: bool = False) -> None:
    """Run all steps. `cluster`: on a cluster of three hosts on this machine.

    Raises CliError when one fails, Interrupted on Ctrl-C and SIGTERM.
    """
    settings = read(DemoSettings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with ExitStack() as stack:
        play(Demo(settings, stack, cluster=cluster))
    output.emit(f"\nAll of it happened, in {output.duration(time.monotonic() - began)}.")


def play(demo: Demo) -> None:
    """All steps in their order; at the end, or when one fails, the VM is deleted if it is still there."""
    try:
        for number, (title, step) in enumerate(STEPS, start=1):
            output.emit(f"\n[{number:2}/{len(STEPS)}] {title}")
            run(demo, step, f"step {number}, {title}")
    finally:
        clean_up(demo)


def run(demo: Demo, step: Callable[[Demo], None], name: str) -> None:
    """Run one step and print its duration; if it fails, also what may explain why."""
    since = time.monotonic()
    try:
        step(demo)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted at {name}") from None
    except CliError as error:
        say(f"FAILED after {output.duration(time.monotonic() - since)}: {error}")
        tell_more(demo)
        raise CliError(f"failed at {name}") from error
    say(f"done in {output.duration(time.monotonic() - since)}")


def tell_more(demo: Demo) -> None:
    """Print what may explain a failure: the last events of the VM, and the end of its serial log."""
    if demo.session is None or demo.vm is None:
        return
    with suppress(CliError):
        found = list(events.read(demo.session, {"vm": demo.vm["id"]}))
        say(f"\nits last events:\n{events.HEADINGS}")
        for event in found[-LAST_EVENTS:]:
            say(f"{events.line(event)}\n  {event['data']}")
    if demo.traces is not None:
        say(f"\nthe end of {demo.traces.console}:")
        for line in demo.traces.last_words(LAST_WORDS):
            say(line)


def clean_up(demo: Demo) -> None:
    """Delete the VM if it still exists. Reports a failure."""
    if demo.session is None or demo.vm is None:
        return
    output.emit("\ncleaning up")
    try:
        answer = demo.session.api.send("DELETE", path("projects", demo.vm["project"], "vms", demo.vm["id"]))
        waiting.operation(demo.session, answer["operation"])
        say("the VM is deleted")
    except CliError as error:
        say(f"the VM could not be deleted: {error}")
