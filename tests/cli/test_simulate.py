"""`nebula node --simulate`: what is refused before anything runs."""

import pytest

from tests.cli.conftest import Nebula


def test_options_of_simulated_nodes_alone_are_refused(nebula: Nebula) -> None:
    ran = nebula("node", "--seed", "5")
    assert ran.status == 2
    assert "--simulate" in ran.err


def test_unknown_faults_and_times_are_named(nebula: Nebula) -> None:
    ran = nebula("node", "--simulate", "1", "--fault", "crsh=1", "--seconds", "boot=-1")
    assert ran.status == 2
    assert "NEBULA_SIMULATE_FAULTS_CRSH" in ran.err
    assert "NEBULA_SIMULATE_SECONDS_BOOT" in ran.err
    assert nebula("node", "--simulate", "1", "--fault", "crash").status == 2


def test_a_setting_that_is_not_json_is_told(nebula: Nebula, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEBULA_SIMULATE_FAULTS", "crash=1")
    ran = nebula("node", "--simulate", "1")
    assert ran.status == 2
    assert "simulate_faults" in ran.err
