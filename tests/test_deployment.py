"""compose.yaml and the Dockerfile: no default password, no needless rights, nothing unpinned, no secret inside."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.local.bus_authority import GIVEN, SERVER
from cli.local.role import PROGRAMS
from runtime.local.servers import NATS_CONF, POSTGRES_ROLES
from runtime.settings import (
    AuthoritySettings,
    Common,
    GatewaySettings,
    GuestDataSettings,
    HandlersSettings,
    NodeSettings,
    ProjectionsSettings,
    read,
)
from runtime.tasks.stopping import GRACE

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PINNED = re.compile(r"[a-z/]+:\d+\.\d+(\.\d+)?-[a-z0-9.-]+|.+@sha256:[0-9a-f]{64}")


def test_no_password_has_a_default() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert len(re.findall(r"\$\{NEBULA_POSTGRES_(\w+_)?PASSWORD:\?", text)) == 6
    assert re.findall(r"\$\{NEBULA_POSTGRES_(?:\w+_)?PASSWORD(?!:\?)", text) == []


def test_each_role_is_its_own_in_postgres_and_none_the_administrator() -> None:
    def knows(password: str) -> set[str]:
        return {name for name, service in SERVICES.items() if f"{{{password}:" in str(service["environment"])}

    assert knows("NEBULA_POSTGRES_PASSWORD") == {"postgres", "postgres-roles"}
    assert knows("NEBULA_POSTGRES_GATEWAY_PASSWORD") == {"gateway", "postgres-roles"}
    assert knows("NEBULA_POSTGRES_PROJECTIONS_PASSWORD") == {"projections", "postgres-roles"}
    assert "//nebula_gateway:" in SERVICES["gateway"]["environment"]["NEBULA_POSTGRES_DSN"]
    assert "//nebula_projections:" in SERVICES["projections"]["environment"]["NEBULA_POSTGRES_DSN"]
    assert [
        name for name in ("handlers", "guest-data", "node") if "POSTGRES" in str(SERVICES[name]["environment"])
    ] == []


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "healthcheck" in service
    assert not service.get("privileged")
    assert name in ("postgres", "node") or "cap_add" not in service


def test_the_node_has_the_rights_of_its_unit_and_the_programs_of_its_firewall() -> None:
    unit = (ROOT / "deploy" / "nebula-node.service").read_text()
    allowed = re.findall(r"CAP_(\w+)", unit.split("CapabilityBoundingSet=")[1].splitlines()[0])
    assert sorted(SERVICES["node"]["cap_add"]) == sorted(allowed)
    assert re.search(r"apt-get install .*\biptables nftables\b", DOCKERFILE.split("FROM ")[2])


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" not in service])
def test_images_of_others_are_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])


def test_base_images_are_pinned_and_the_user_is_not_root() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases
    assert all(PINNED.fullmatch(base) for base in bases)
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE) == ["nebula"]
    assert "HEALTHCHECK" in DOCKERFILE


def test_keys_only_where_they_are_needed() -> None:
    def mounts(service: str) -> str:
        return " ".join(SERVICES[service].get("volumes", []))

    assert "home:" not in mounts("gateway")
    assert mounts("gateway").split() == [
        "bus-gateway:/var/lib/nebula-bus/gateway:ro",
        "pepper:/var/lib/nebula/pepper",
        "event-keys:/var/lib/nebula/event-keys:ro",
    ]
    assert "home:" not in mounts("projections"), "the key that signs the log is the handlers' alone"
    assert "keys:/var/lib/nebula/keys:ro" in mounts("projections")
    assert mounts("guest-data").split() == [
        "bus-guest-data:/var/lib/nebula-bus/guest-data:ro",
        "guest-data:/var/lib/nebula/guest-data",
    ], "its credential and its copies alone"
    assert "NEBULA_POSTGRES_DSN" not in SERVICES["handlers"]["environment"]
    assert [name for name in SERVICES if "secrets" in SERVICES[name]] == ["gateway"]


def test_the_bus_has_accounts_and_each_role_its_own_credential() -> None:
    """The authority alone has the keys; the server reads a configuration without secrets; others read one volume."""
    readers: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            readers.setdefault(mount.split(":")[0], set()).add(name)
    makers = {"bus-init", "authority"}
    assert readers["bus-keys"] == makers
    assert readers["bus-server"] == makers | {"nats"}
    for role in GIVEN:
        folder = f"{AuthoritySettings().bus_files}/{role}"
        assert readers[f"bus-{role}"] == makers | {role}
        assert f"bus-{role}:{folder}:ro" in SERVICES[role]["volumes"]
        assert f"bus-{role}:{folder}" in SERVICES["authority"]["volumes"]
        assert SERVICES[role]["environment"]["NEBULA_NATS_CREDS"] == f"{folder}/bus.creds"
    assert SERVICES["authority"]["volumes"] == SERVICES["bus-init"]["volumes"]
    nats = SERVICES["nats"]
    assert nats["command"][:2] == ["--config", f"{AuthoritySettings().bus_files}/{SERVER}/nats.conf"]
    assert not [word for word in nats["command"] if "http" in word], "who may connect is told to nobody"
    store = nats["environment"]["NEBULA_NATS_STORE"]
    assert Path(store) in Path(SERVICES["authority"]["environment"]["NEBULA_BUS_RESOLVER"]).parents
    assert any(mount.split(":")[1:] == [store] for mount in nats["volumes"]), "it can be written to"
    assert nats["depends_on"] == {"bus-init": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" in service])
def test_a_new_volume_belongs_to_the_user_of_the_image(name: str) -> None:
    """A named volume gets the owner of the folder in the image; without such a folder it is root's."""
    made = re.findall(r"mkdir -m \d+ ([^&\n\\]+)", DOCKERFILE)
    folders = {
        folder if folder.startswith("/") else f"/var/lib/nebula-bus/{folder}"
        for group in made
        for folder in group.split()
    }
    for mount in SERVICES[name].get("volumes", []):
        volume, folder = mount.split(":")[:2]
        if volume in COMPOSE["volumes"]:
            assert folder in folders | {"/var/lib/nebula"}, f"{volume} of {name}"


def test_only_what_is_named_goes_into_the_image() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {"**/*.creds", "**/*.seed"} <= set(rules)
    named = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in named)
    for secret in ("tokens", ".env", ".git", "master.key", "deploy"):
        assert secret not in named
    assert {"**/.env*", "**/tokens", "**/*.key"} <= set(rules)


#: Each role's service in compose.yaml, and the settings that its process reads.
ROLES: dict[str, type[Common]] = {
    "gateway": GatewaySettings,
    "handlers": HandlersSettings,
    "projections": ProjectionsSettings,
    "guest-data": GuestDataSettings,
    "node": NodeSettings,
    "bus-init": AuthoritySettings,
    "authority": AuthoritySettings,
}
#: Every place that may be written to in a container whose root is read-only, by role.
WRITABLE = {
    "gateway": [],
    "handlers": ["/var/lib/nebula"],
    "projections": [],
    "guest-data": [],
    "node": ["/var/lib/nebula"],
    "bus-init": ["/var/lib/nebula"],
    "authority": ["/var/lib/nebula"],
}
#: Values of the variables that are passed on if they are set.
PASSED_ON = {
    "NEBULA_HTTP_NAMES": "cloud.example",
    "NEBULA_HTTP_ORIGINS": "https://console.example",
    "NEBULA_OIDC_ISSUER": "https://login.example",
    "NEBULA_OIDC_AUDIENCE": "nebula",
    "NEBULA_OIDC_CLIENT_ID": "nebula-cli",
    "NEBULA_OIDC_SCOPES": "openid",
    "NEBULA_OIDC_CLAIM": "email",
    "NEBULA_OIDC_ROLES": '{"claim": "groups", "map": {"ops": "operator"}}',
}


def environment(service: str) -> dict[str, str]:
    """The service's variables as Docker Compose would set them, with what the image sets."""
    fixed = dict(re.findall(r"(NEBULA_\w+)=(\S+)", DOCKERFILE))
    given = dict.fromkeys(re.findall(r"\$\{(\w+):\?", str(SERVICES[service])), "secret")

    def value(found: re.Match[str]) -> str:
        return given.get(found[1]) or found[3] or ""

    own = {name: PASSED_ON[name] if text is None else text for name, text in SERVICES[service]["environment"].items()}
    return fixed | {name: re.sub(r"\$\{(\w+)(:-([^}]*)|:\?[^}]*)?\}", value, str(text)) for name, text in own.items()}


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_does_not_stop_ends_itself_before_it_is_killed(role: str) -> None:
    assert int(SERVICES[role]["stop_grace_period"].removesuffix("s")) > GRACE


@pytest.mark.parametrize("role", ROLES)
def test_each_role_gets_settings_that_it_reads_and_takes(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ROLES[role]
    for name in [name for name in os.environ if name.startswith("NEBULA_")]:
        monkeypatch.delenv(name)
    for name, text in environment(role).items():
        assert name.removeprefix("NEBULA_").lower() in kind.model_fields, f"{role} reads no {name}"
        monkeypatch.setenv(name, text)
    own = read(kind)
    assert own.nats_url == ("nats://127.0.0.1:4222" if role == "node" else "nats://nats:4222")
    if isinstance(own, GatewaySettings):
        assert own.tokens_file == Path("/run/secrets") / SERVICES["gateway"]["secrets"][0], "not loopback: needs tokens"
        assert own.http_port == 8700
        assert own.oidc_issuer == PASSED_ON["NEBULA_OIDC_ISSUER"]
        folder = str(own.pepper_path.parent)
        assert any(mount.split(":")[1] == folder for mount in SERVICES[role]["volumes"])
        assert folder in DOCKERFILE, "the volume is of its user"
    if isinstance(own, GuestDataSettings):
        assert any(mount.split(":")[1] == str(own.copies_dir) for mount in SERVICES[role]["volumes"])
        assert str(own.copies_dir) in DOCKERFILE, "the volume is of its user"
    if isinstance(own, HandlersSettings | ProjectionsSettings):
        keys = own.master_key_path.parent
        assert any(mount.split(":")[1] == str(keys) for mount in SERVICES[role]["volumes"])
    for folder in WRITABLE[role]:
        assert str(own.home) == folder
        mounts = [mount.split(":")[1:] for mount in SERVICES[role]["volumes"]]
        assert [folder] in mounts, "its home can be written to"


def test_the_image_has_every_file_that_the_roles_import(tmp_path: Path) -> None:
    """What .dockerignore lets through, copied as COPY does, and nothing else of ours: all roles can be imported.

    What is compiled is copied too: else all of it would be, once more. Without its source it is not imported. What is
    being compiled at this moment has another name, and may be gone when it is copied.
    """
    named = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in named:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    modules = ["cli.main", "cli.local.up", *(module for module, _ in PROGRAMS.values())]
    program = (
        f"import sys; sys.path = [{str(tmp_path)!r}, *(p for p in sys.path if p not in ('', {str(ROOT)!r}))]\n"
        f"import importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"ours = [m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in {named!r} and m.__file__]\n"
        f"print(all(file.startswith({str(tmp_path)!r}) for file in ours), len(ours) > 100)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout.strip(), done.stderr) == ("True True", "")
    assert {NATS_CONF.name, POSTGRES_ROLES.name} <= set(named), "what `nebula up` reads beside the packages"


def test_secrets_are_kept_out_last() -> None:
    """The last rule that fits a file decides, so the refusals come after all that lets files in."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    first_refusal = rules.index("**/__pycache__")
    assert all(rule.startswith("!") for rule in rules[1:first_refusal])
    assert all(rule.startswith("**/") for rule in rules[first_refusal:])


def test_all_that_services_refer_to_is_there() -> None:
    """Volumes, secrets and services that others name; and none is declared for nobody."""
    assert set(COMPOSE) - {"name", "services", "volumes", "secrets"} == {
        *("x-confined", "x-alive", "x-role", "x-authority")
    }
    volumes = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert {name for name in volumes if not name.startswith((".", "/"))} == set(COMPOSE["volumes"])
    assert {secret for service in SERVICES.values() for secret in service.get("secrets", [])} == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
