"""Random faults of simulated hosts and their guests, at the rates of the settings."""

import asyncio
import random

from node_daemon.hypervisor.faults import Faulty
from node_daemon.simulation.simulated_host import SimulatedHost
from runtime import logs
from runtime.settings import FaultRates

log = logs.get(__name__)

#: Seconds after which the number of running guests is read again, since the rates depend on it.
LOOK = 10.0
#: Seconds that an outage of the hypervisor lasts, on average.
OUTAGE = 10.0
HOUR = 3600.0


async def until_reboot(host: SimulatedHost, hypervisor: Faulty, rates: FaultRates, rng: random.Random) -> None:
    """Cause one fault after the other. Returns when the host loses power; never if that rate is 0."""
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
            continue  # no fault within LOOK seconds; the number of guests may have changed
        (fault,) = rng.choices(list(chances), list(chances.values()))
        log.info("a random fault happens", fault=fault)
        match fault:
            case "crash":
                host.crash(rng.choice(guests))
            case "poweroff":
                host.power_off(rng.choice(guests))
            case "stall":
                host.stall(rng.choice(guests))
            case "vanish":
                host.vanish(rng.choice(guests))
            case "outage":
                async with hypervisor.outage():
                    host.restart()
                    await asyncio.sleep(OUTAGE * rng.uniform(0.5, 1.5))
            case "reboot":
                return
