"""A token is sent to its own platform only; private keys are sent nowhere."""

from pathlib import Path

import pytest

from cli.credentials import DEFAULT_URL, Given, same, target
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform

HERE, ELSEWHERE = "http://127.0.0.1:8701", "https://cloud.example.org"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "admin.token").write_text("local\n")
    (tmp_path / "api.url").write_text(HERE)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "environment", "url", "token"),
    [
        (Given(), Given(), HERE, "local"),
        (Given(url=HERE), Given(), HERE, "local"),
        (Given(url="http://localhost:8701/"), Given(), "http://localhost:8701/", "local"),
        (Given(), Given(url="http://LOCALHOST:8701"), "http://LOCALHOST:8701", "local"),
        (Given(url=ELSEWHERE), Given(), ELSEWHERE, None),
        (Given(), Given(url=ELSEWHERE), ELSEWHERE, None),
        (Given(url="http://127.0.0.1:8702"), Given(), "http://127.0.0.1:8702", None),
        (Given(url="https://127.0.0.1:8701"), Given(), "https://127.0.0.1:8701", None),
        (Given(url="http://127.0.0.1:8701/other"), Given(), "http://127.0.0.1:8701/other", None),
        (Given(url="http://127.0.0.1:8701@evil.example"), Given(), "http://127.0.0.1:8701@evil.example", None),
        (Given(url="http://evil.example#127.0.0.1:8701"), Given(), "http://evil.example#127.0.0.1:8701", None),
        (Given(url="http://[::1"), Given(), "http://[::1", None),
        (Given(url=ELSEWHERE), Given(url=HERE, token="theirs"), ELSEWHERE, None),
        (Given(url=ELSEWHERE), Given(token="theirs"), ELSEWHERE, None),
        (Given(), Given(url=ELSEWHERE, token="theirs"), ELSEWHERE, "theirs"),
        (Given(), Given(token="theirs"), HERE, "theirs"),
        (Given(url=ELSEWHERE, token="given"), Given(url=HERE, token="theirs"), ELSEWHERE, "given"),
    ],
)
def test_whose_token_goes_where(home: Path, line: Given, environment: Given, url: str, token: str | None) -> None:
    found = target(line, environment, home)
    assert (found.url, found.token) == (url, token)
    assert found.token or "token" in found.help


def test_a_home_from_before_is_the_default_platforms(tmp_path: Path) -> None:
    (tmp_path / "admin.token").write_text("local")
    assert target(Given(), Given(), tmp_path).token == "local"
    assert target(Given(url=HERE), Given(), tmp_path).token is None
    assert target(Given(), Given(), tmp_path / "none").url == DEFAULT_URL


def test_a_port_is_the_schemes_own() -> None:
    assert same("https://a.example", "https://A.example:443/")
    assert not same("https://a.example", "http://a.example")


def test_the_local_token_is_not_sent_elsewhere(nebula: Nebula, platform: Platform, home: Path) -> None:
    platform.token = "local"
    ran = nebula("vm", "list")
    assert ran.status == 1 and HERE in ran.err and "--token" in ran.err
    (home / "api.url").write_text(platform.url)
    assert nebula("vm", "list").status == 0


PRIVATE = {
    "openssh": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKC\n-----END RSA PRIVATE KEY-----\n",
    "pkcs8": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgk\n-----END ENCRYPTED PRIVATE KEY-----\n",
    "putty": "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nSECRETSECRET\n",
    "below a public one": "ssh-ed25519 AAAAC3Nz me\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n",
    "without its frame": "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n",
}


@pytest.mark.parametrize("kind", PRIVATE)
@pytest.mark.parametrize("as_file", [True, False])
def test_a_private_key_is_not_sent(
    nebula: Nebula, platform: Platform, tmp_path: Path, kind: str, as_file: bool
) -> None:
    file = tmp_path / "id_ed25519"
    file.write_text(PRIVATE[kind])
    given = f"--ssh-key={file if as_file else PRIVATE[kind]}"
    for command in (("vm", "create", "web-1", "--image", "debian-12"), ("project", "create", "p")):
        ran = nebula(*command, given)
        assert ran.status == 2
        assert "private key" in ran.err
        assert "MII" not in ran.err and "b3Bl" not in ran.err and "SECRET" not in ran.err
    assert not platform.keys("POST")
