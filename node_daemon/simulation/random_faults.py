"""What befalls simulated hosts and their guests by themselves, at the rates of the settings."""

import asyncio
import random

from node_daemon.hypervisor.faults import Faulty
from node_daemon.simulation.simulated_host import SimulatedHost
from runtime import logs
from runtime.settings import FaultRates

log = logs.get(__name__)

#: Seconds between looks at how many guests there are to be befallen.
LOOK = 10.0
#: Seconds that an outage of the hypervisor lasts, on average.
OUTAGE = 10.0
HOUR = 3600.0


async def until_reboot(host: SimulatedHost, way: Faulty, rates: FaultRates, rng: random.Random) -> None:
    """Let things happen, one after the other; returns when the host loses its power. Never, where it does not."""
    if not any((rates.crash, rates.poweroff, rates.stall, rates.vanish, rates.outage, rates.reboot)):
        await asyncio.Event().wait()
    while True:
        guests = host.running()
        chances = {
            "crash": rates.crash * len(guests),
            "poweroff": rates.poweroff * len(guests),
            "stall": rates.stall * len(guests),
            "vanish": rates.vanish * len(guests),
            "outage": rates.outage,
            "reboot": rates.reboot,
        }
        total = sum(chances.values()) / HOUR
        wait = rng.expovariate(total) if total else LOOK
        await asyncio.sleep(min(wait, LOOK))
        if wait >= LOOK:
            continue  # nothing so far: the chances are as they were, or others if guests came or went
        (fate,) = rng.choices(list(chances), list(chances.values()))
        log.info("fate", fate=fate)
        match fate:
            case "crash":
                host.crash(rng.choice(guests))
            case "poweroff":
                host.power_off(rng.choice(guests))
            case "stall":
                host.stall(rng.choice(guests))
            case "vanish":
                host.vanish(rng.choice(guests))
            case "outage":
                async with way.outage():
                    host.restart()
                    await asyncio.sleep(OUTAGE * rng.uniform(0.5, 1.5))
            case "reboot":
                return
