"""In which order, and in which worker, the tests run: `make test` runs several workers of pytest-xdist."""

from zlib import crc32

from xdist.scheduler.loadfile import LoadFileScheduling  # type: ignore[import-untyped]

#: Folders whose files share what is expensive to start, and how many workers share these. One worker for the console,
#: with more than a hundred tests of about three seconds each, would need nearly as long as all others together.
TOGETHER = {"tests/console/": 2}


class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Tests of a file run in one worker, since they share its servers; and so do those of some folders."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        for folder, count in TOGETHER.items():
            if file.startswith(folder):
                return f"{folder}{crc32(file.encode()) % count}"
        return file


#: Files that take longest, the longest first: they are begun first, so that no worker is left with one at the end.
#: The first builds the image of a stock Debian on a new machine. `test_seed_disk.py`, which needs this image too, comes
#: after the files that the other workers begin with, so that nobody waits. A worker is given its next file when it has
#: two tests left, as the first has from the beginning: so the seventh is a short one, which nobody waits for. Of each
#: part of the console one file is here, whose worker runs the others of this part next.
LONGEST = (
    "e2e/test_boot.py",
    "e2e/test_kill.py",
    "node_daemon/test_crash.py",
    "gateway/test_schemathesis.py",
    "console/test_journey.py",
    "e2e/test_isolation.py",
    "several/test_room.py",
    "console/test_vm_create.py",
    "cluster/test_chaos.py",
    "e2e/test_seed_disk.py",
    "node_daemon/test_hypervisor.py",
    "e2e/test_local_node.py",
    "projections/test_past.py",
    "test_benches.py",
    "integrity/test_sound.py",
    "e2e/test_node_key_rotation.py",
    "several/test_kills.py",
    "e2e/test_simulation.py",
    "roles/test_stops.py",
    "upgrade/test_rolling.py",
    "cluster/test_leader.py",
    "node_daemon/test_process.py",
    "e2e/test_soak.py",
    "node_daemon/test_consoles.py",
    "handlers/test_fences.py",
    "attacks/test_bridge.py",
    "handlers/test_handlers.py",
    "projections/test_upgrade.py",
    "node_daemon/test_host_firewall.py",
    "gateway/test_access.py",
    "projections/test_malformed.py",
    "gateway/test_console.py",
    "e2e/test_local_user.py",
    "e2e/test_accounts.py",
    "eventstore/test_model.py",
    "bus_accounts/test_renewal.py",
    "cli/test_other_host.py",
    "e2e/test_rescue.py",
    "cli/test_up.py",
    "cli/test_stolen_node.py",
    "node_daemon/test_guest_failures.py",
    "gateway/test_reads.py",
    "e2e/test_secrets.py",
    "projections/test_runner.py",
    "gateway/test_own_writes.py",
    "gateway/test_waits.py",
    "contracts/test_cluster.py",
    "cli/test_catalog.py",
    "handlers/test_attacking_node.py",
    "gateway/test_matrix.py",
    "contracts/test_recorders.py",
    "integrity/test_log.py",
    "handlers/test_two_handlers.py",
    "bus_accounts/test_matrix.py",
    "eventstore/test_follow.py",
    "gateway/test_oidc.py",
    "gateway/test_code_login.py",
    "node_daemon/test_faults.py",
    "attacks/test_data_source.py",
    "gateway/test_health.py",
    "attacks/test_frames.py",
    "contracts/test_outages.py",
    "contracts/test_persistence.py",
    "gateway/test_events.py",
    "projections/test_past_turns.py",
    "domain/test_vm_machine.py",
    "handlers/test_permissions.py",
    "handlers/test_stops.py",
    "eventstore/test_chaos.py",
    "cli/test_demo.py",
    "domain/test_vm.py",
    "node_daemon/test_daemon.py",
    "handlers/test_snapshots.py",
    "gateway/test_asks.py",
    "handlers/test_leases.py",
    "node_daemon/test_daemon_faults.py",
    "bus_accounts/test_replies.py",
    "test_http_limits.py",
    "gateway/test_past.py",
    "test_http_edge.py",
    "test_scale.py",
    "cluster/test_full_disk.py",
    "cluster/test_postgres.py",
    "upgrade/test_from_10b4582.py",
    "test_bench_stages.py",
    "projections/test_behind.py",
)
