"""The systemd units in deploy/: each role is a user of its own, without rights, and is given only what it needs."""

import re
import subprocess
from pathlib import Path

import pytest

from cli.local.bus_authority import GIVEN, SERVER
from runtime.bus.accounts.table import GUEST_DATA
from runtime.bus.guest_credentials import GuestFiles
from runtime.settings import (
    AuthoritySettings,
    Common,
    GatewaySettings,
    GuestDataSettings,
    HandlersSettings,
    NodeSettings,
    ProjectionsSettings,
)
from runtime.tasks.stopping import FORCED, GRACE

DEPLOY = Path(__file__).parents[1] / "deploy"
ROLES: dict[str, type[Common]] = {
    "gateway": GatewaySettings,
    "handlers": HandlersSettings,
    "projections": ProjectionsSettings,
    "guest-data": GuestDataSettings,
    "node": NodeSettings,
    "authority": AuthoritySettings,
}
UNPRIVILEGED = sorted(ROLES.keys() - {"node"})
#: Roles with a user of their own on the host of the authority, which renews the credentials of all but itself.
WITH_USER = ("authority", "gateway", "handlers", "projections")
#: The secrets that a role is given as files, besides its credential for the bus.
SECRETS = {
    "gateway": {"NEBULA_PEPPER_FILE", "NEBULA_EVENT_KEYS_FILE"},
    "handlers": {"NEBULA_MASTER_KEY_FILE", "NEBULA_EVENT_KEYS_FILE"},
    "projections": {"NEBULA_MASTER_KEY_FILE", "NEBULA_EVENT_KEYS_FILE"},
    "guest-data": set(),
    "node": set(),
    "authority": set(),
}
#: From 0 (no exposure) to 10, as `systemd-analyze security` counts it.
MOST_EXPOSED = {"node": 3.5}


def unit(role: str) -> str:
    return (DEPLOY / f"nebula-{role}.service").read_text()


def values(role: str, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit(role), re.MULTILINE)


def analyzed(*words: str) -> str:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_each_role_has_a_unit() -> None:
    assert {path.stem.removeprefix("nebula-") for path in DEPLOY.glob("nebula-*.service")} == ROLES.keys()


@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_the_unit(role: str) -> None:
    path = DEPLOY / f"nebula-{role}.service"
    told = [line for line in analyzed("verify", str(path)).splitlines() if "is not executable" not in line]
    assert told == []
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", analyzed("security", "--offline=true", str(path)))
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSED.get(role, 1.5)


@pytest.mark.parametrize("role", UNPRIVILEGED)
def test_a_role_without_guests_has_no_right_on_its_host(role: str) -> None:
    assert values(role, "CapabilityBoundingSet") == [""]
    assert values(role, "NoNewPrivileges") == ["yes"]
    assert values(role, "UMask") == ["0077"]
    assert values(role, "ProtectSystem") == ["strict"]
    own = values(role, "User") or values(role, "DynamicUser")
    assert own == (["yes"] if role == "guest-data" else [f"nebula-{role}"])


def test_guest_data_reads_the_credential_that_the_node_of_its_host_renews() -> None:
    home = dict(line.split("=") for line in values("node", "Environment"))["NEBULA_HOME"]
    assert values("guest-data", "LoadCredential") == [f"bus.creds:{GuestFiles(Path(home)).creds}"]
    assert values("guest-data", "Restart") == ["always"], "it ends when the credential that it began with expires"


def test_each_unit_is_started_again_however_often_it_ends() -> None:
    """By default systemd starts a unit five times in ten seconds, and then never again."""
    for unit_file in DEPLOY.glob("*.service"):
        text, _, service = unit_file.read_text().partition("[Service]")
        assert "\nStartLimitIntervalSec=0\n" in text.partition("[Unit]")[2], unit_file.name
        assert "\nRestart=always\n" in service or "\nRestart=on-failure\n" in service, unit_file.name


def test_each_user_is_made_and_none_without_a_unit() -> None:
    users = re.findall(r"^u (\S+)", (DEPLOY / "nebula.sysusers").read_text(), re.MULTILINE)
    assert users == [user for role in WITH_USER for user in values(role, "User")]
    made = subprocess.run(
        ["systemd-sysusers", "--dry-run", DEPLOY / "nebula.sysusers"], capture_output=True, text=True, check=True
    )
    assert "not a valid" not in made.stderr
    assert all(f"user '{user}'" in made.stdout + made.stderr for user in users)


def test_each_role_reads_its_own_credential_where_the_authority_renews_it() -> None:
    lines = [line.split() for line in (DEPLOY / "nebula.tmpfiles").read_text().splitlines() if line[0] != "#"]
    folders = {path: (mode, owner, group) for _, path, mode, owner, group in lines}
    base = dict(line.split("=") for line in values("authority", "Environment"))["NEBULA_BUS_FILES"]
    assert values("authority", "ReadWritePaths") == [base]
    assert folders.keys() == {base, f"{base}/{SERVER}", *(f"{base}/{role}" for role in GIVEN)}
    for role in set(GIVEN) & set(WITH_USER):
        given = dict(line.split("=") for line in values(role, "Environment"))
        assert given["NEBULA_NATS_CREDS"] == f"{base}/{role}/bus.creds", "not a copy, which would not be renewed"
        assert folders[f"{base}/{role}"] == ("2750", "nebula-authority", values(role, "Group")[0])
        others = [other for other in ROLES if other != role and f"{base}/{role}" in unit(other)]
        assert others == []
    assert folders[f"{base}/{GUEST_DATA}"] == ("0700", "nebula-authority", "nebula-authority")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_does_not_stop_ends_itself_before_it_is_killed(role: str) -> None:
    """So the log says what it was waiting for, and the unit has not failed."""
    assert float(values(role, "TimeoutStopSec")[0]) > GRACE
    assert values(role, "SuccessExitStatus") == [str(FORCED)]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_the_settings_that_its_unit_names(role: str) -> None:
    for name in set(re.findall(r"NEBULA_(\w+)=", unit(role))):
        assert name.lower() in ROLES[role].model_fields, f"{role} reads no NEBULA_{name}"


@pytest.mark.parametrize("role", ROLES)
def test_secrets_are_files_that_only_this_role_is_given(role: str) -> None:
    given = {line.split("=")[0]: line.split("=")[1] for line in values(role, "Environment")}
    files = {name: path for name, path in given.items() if path.startswith("%d/")}
    assert files.keys() - {"NEBULA_NATS_CREDS"} == SECRETS[role]
    loaded = dict(line.split(":") for line in values(role, "LoadCredential"))
    assert {path.removeprefix("%d/") for path in files.values()} == loaded.keys()
    folder = "/var/lib/nebula/guest-credentials" if role == "guest-data" else f"/etc/nebula/{role}"
    assert all(path == f"{folder}/{name}" for name, path in loaded.items())
    assert "PASSWORD" not in "".join(line for line in unit(role).splitlines() if not line.startswith("#"))
