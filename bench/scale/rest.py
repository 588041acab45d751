"""Memory of the control plane at rest, in MiB: all roles of one machine on an empty log, as `nebula up` starts them.

They are forks of one process that has imported their modules. It counts too, as `forks_mib`.

PSS: pages that several processes share are split among them. `anonymous_mib` is the part that no file backs, so it
does not depend on what else runs. The number of VMs is ignored.
"""

import asyncio
import re
from pathlib import Path

from bench.cloud import forked, pss_mib

ROLES = ("handlers", "projections", "gateway", "guest-data", "node")
SETTLED = 5.0
_ANONYMOUS = re.compile(r"^Pss_Anon:\s+(\d+) kB", re.MULTILINE)


async def measure(vms: int, home: Path | None) -> dict[str, float]:
    del vms, home
    settings = {"NEBULA_LIBVIRT_URI": "test:///default", "NEBULA_GUEST_FIREWALL": "false"}
    async with forked(ROLES, **settings) as made:
        await asyncio.sleep(SETTLED)
        assert made.servers is not None and made.forks is not None and made.forks.pid is not None
        by_role = made.pss_mib() | {"forks": round(pss_mib(made.forks.pid), 1)}
        pids = [made.forks.pid, *(process.pid for process in made.processes.values())]
        anonymous = sum(anonymous_mib(pid) for pid in pids)
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
