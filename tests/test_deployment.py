"""compose.yaml and the Dockerfile: no default password, no needless rights, nothing unpinned, no secret inside."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert [name for name in ("handlers", "node") if "POSTGRES" in str(SERVICES[name]["environment"])] == []


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "healthcheck" in service
    assert not service.get("privileged")
    assert name in ("postgres", "node") or "cap_add" not in service


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
    assert "keys:" not in mounts("gateway")
    assert "home:" not in mounts("projections"), "the key that signs the log is the handlers' alone"
    assert "keys:/var/lib/nebula/keys:ro" in mounts("projections")
    assert "NEBULA_POSTGRES_DSN" not in SERVICES["handlers"]["environment"]
    assert [name for name in SERVICES if "secrets" in SERVICES[name]] == ["gateway"]


def test_only_what_is_named_goes_into_the_image() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    named = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in named)
    for secret in ("tokens", ".env", ".git", "master.key", "deploy"):
        assert secret not in named
    assert {"**/.env*", "**/tokens", "**/*.key"} <= set(rules)
