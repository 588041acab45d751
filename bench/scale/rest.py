"""Memory of the control plane at rest, in MiB: all roles of one machine on an empty log.

PSS: pages that several processes share are split among them. `anonymous_mib` is the memory that no file backs, so it
does not depend on what else runs. The number of VMs is ignored.
"""

import asyncio
import re
from pathlib import Path

from bench.cloud import cloud, pss_mib

ROLES = ("handlers", "projections", "gateway", "guest-data", "node")
SETTLED = 5.0
_ANONYMOUS = re.compile(r"^Anonymous:\s+(\d+) kB", re.MULTILINE)


async def measure(vms: int, home: Path | None) -> dict[str, float]:
    del vms, home
    settings = {"NEBULA_LIBVIRT_URI": "test:///default", "NEBULA_GUEST_FIREWALL": "false"}
    async with cloud(ROLES, **settings) as made:
        await asyncio.sleep(SETTLED)
        by_role = made.pss_mib()
        anonymous = sum(anonymous_mib(process.pid) for process in made.processes.values())
        assert made.servers is not None
        nats = pss_mib(made.servers.nats.pid)
    return {
        "roles_mib": round(sum(by_role.values()), 1),
        "anonymous_mib": round(anonymous, 1),
        "nats_mib": round(nats, 1),
        **{f"{role}_mib": size for role, size in by_role.items()},
    }


def anonymous_mib(pid: int) -> float:
    found = _ANONYMOUS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1]) / 1024 if found else 0.0
