"""`nebula node --simulate N`: N nodes in one process, without a hypervisor.

The options take precedence over NEBULA_* of the environment. A platform that `nebula up` runs on this machine is found.
"""

from typing import Annotated, Any

import typer

from cli.client.errors import Usage
from cli.local.home import on_bus, seed_url_file
from cli.local.role import SIMULATION, run

PANEL = "Simulated nodes"

Count = Annotated[
    int | None,
    typer.Option(
        "--simulate",
        help="Run this many simulated nodes in one process, without a hypervisor: a large cloud on a laptop. "
        "The nodes, their VMs and disks are stored in NEBULA_HOME, so the process can be stopped and started again.",
        rich_help_panel=PANEL,
        min=1,
    ),
]
Prefix = Annotated[str | None, typer.Option(help="Names: PREFIX-001, PREFIX-002 … (sim).", rich_help_panel=PANEL)]
Region = Annotated[str | None, typer.Option(help="Region of all of them (NEBULA_REGION).", rich_help_panel=PANEL)]
Vcpus = Annotated[int | None, typer.Option(help="CPUs that each of them offers (32).", rich_help_panel=PANEL)]
Memory = Annotated[int | None, typer.Option(help="MiB of memory that each offers (131072).", rich_help_panel=PANEL)]
Disk = Annotated[int | None, typer.Option(help="GiB of disk that each offers (2048).", rich_help_panel=PANEL)]
Seconds = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT=SECONDS",
        help="Durations, varied by up to half: call (0.002), image (1), boot (5), lease (2), "
        "shutdown (2), memory (2), reboot (20).",
        rich_help_panel=PANEL,
    ),
]
Fault = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WHAT=RATE",
        help="Rates of faults (0): refused, hang: share of all calls; crash, poweroff, stall, vanish: "
        "per VM and hour; outage, reboot: per node and hour. clock: seconds that the hosts' clocks are ahead.",
        rich_help_panel=PANEL,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of the random numbers (0).", rich_help_panel=PANEL)]
PhoneHome = Annotated[
    bool | None,
    typer.Option(
        "--phone-home/--no-phone-home",
        help="Guests fetch their configuration from NEBULA_SEED_URL and report ready, as cloud-init does.",
        rich_help_panel=PANEL,
    ),
]


def simulate(given: dict[str, Any]) -> None:
    """Run until stopped. `given`: settings by name; None means not given."""
    from runtime.settings import SimulationSettings, read

    settings = read(SimulationSettings, {name: value for name, value in given.items() if value is not None})
    found: dict[str, Any] = {}
    seed_url = seed_url_file(settings.home)
    if "nats_url" not in settings.model_fields_set:
        if "nats_creds" not in settings.model_fields_set and (settings.home / "bus" / "keys").is_dir():
            from runtime.bus.accounts.authority import Authority

            Authority(settings.home).renew(SIMULATION)  # until the next start of `nebula up` without simulated nodes
        found |= {
            name: to for name, to in on_bus(settings.home, SIMULATION).items() if name not in settings.model_fields_set
        }
    if "seed_url" not in settings.model_fields_set and seed_url.exists():
        found["seed_url"] = seed_url.read_text().strip()
    run(SIMULATION, settings.model_copy(update=found))


def numbers(option: str, pairs: list[str] | None) -> dict[str, str] | None:
    """`a=1 b=2` as a mapping. Raises Usage; names and values are checked with the settings."""
    if not pairs:
        return None
    found = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(found.values()):
        raise Usage(f"--{option} takes WHAT=NUMBER")
    return found
