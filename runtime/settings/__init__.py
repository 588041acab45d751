"""The settings of each process: one frozen class for each, read once in `main` from `NEBULA_*`, and
passed on by hand.

A file for each role: `gateway.py`, `handlers.py`, `projections.py`, `guest_data.py`, `node.py`, `simulation.py` and
`authority.py`. What several roles need is in `common.py` (all of them), `stores.py`, `listening.py` and `oidc.py`.
`checks.py` has the checks of single values, `reading.py` reads them. Import the names from here.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.settings.authority import AuthoritySettings
    from runtime.settings.common import Common, default_home
    from runtime.settings.gateway import GatewaySettings
    from runtime.settings.guest_data import GuestDataSettings
    from runtime.settings.handlers import HandlersSettings
    from runtime.settings.listening import Listening
    from runtime.settings.node import NodeSettings, node_name
    from runtime.settings.oidc import Oidc
    from runtime.settings.projections import ProjectionsSettings
    from runtime.settings.reading import read
    from runtime.settings.simulation import FaultRates, Latencies, SimulationSettings
    from runtime.settings.stores import Database, Keyed, Vaulted

__all__ = [
    "AuthoritySettings",
    "Common",
    "Database",
    "FaultRates",
    "GatewaySettings",
    "GuestDataSettings",
    "HandlersSettings",
    "Keyed",
    "Latencies",
    "Listening",
    "NodeSettings",
    "Oidc",
    "ProjectionsSettings",
    "SimulationSettings",
    "Vaulted",
    "default_home",
    "node_name",
    "read",
]

_MODULES = {
    "authority": ("AuthoritySettings",),
    "common": ("Common", "default_home"),
    "gateway": ("GatewaySettings",),
    "guest_data": ("GuestDataSettings",),
    "handlers": ("HandlersSettings",),
    "listening": ("Listening",),
    "node": ("NodeSettings", "node_name"),
    "oidc": ("Oidc",),
    "projections": ("ProjectionsSettings",),
    "reading": ("read",),
    "simulation": ("FaultRates", "Latencies", "SimulationSettings"),
    "stores": ("Database", "Keyed", "Vaulted"),
}


def __getattr__(name: str) -> Any:
    """Load the module of a name when it is first used: a role needs its own settings only."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
