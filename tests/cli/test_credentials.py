"""A token is sent to its own platform only; private keys are sent nowhere."""

from pathlib import Path

import pytest

from cli.client.client import Client
from cli.client.credentials import DEFAULT_URL, Given, same, target
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG" + "A" * 42
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
        (Given(url="http://localhost:8701/"), Given(), HERE, "local"),
        (Given(), Given(url="HTTP://LOCALHOST:8701"), HERE, "local"),
        (Given(url="http://[::1]:8701"), Given(), HERE, "local"),
        (Given(url="http://localhost.:8701"), Given(), "http://localhost.:8701", None),
        (Given(url="http://127.1:8701"), Given(), "http://127.1:8701", None),
        (Given(url="http://me:word@127.0.0.1:8701"), Given(), "http://me:word@127.0.0.1:8701", None),
        (Given(url="http://127.0.0.1:8701\\@evil.example"), Given(), "http://127.0.0.1:8701\\@evil.example", None),
        (Given(url="http://ⓛocalhost:8701"), Given(), "http://ⓛocalhost:8701", None),
        (Given(url="http://localhost:8701"), Given(url=HERE, token="theirs"), HERE, "theirs"),
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


def test_at_a_name_of_this_machine_the_token_goes_where_its_platform_listens(
    nebula: Nebula, platform: Platform, home: Path
) -> None:
    """Another user may listen at another address of this machine."""
    platform.token = "local"
    (home / "api.url").write_text(platform.url)
    assert nebula("vm", "list", "--url", platform.url.replace("127.0.0.1", "[::1]")).status == 0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nowhere", "for example"),
        ("ftp://a.example", "for example"),
        ("http://", "for example"),
        ("http://a.example:99999", "port"),
        ("http://a.example:0", "port"),
        ("http://a.example:x", "for example"),
        ("http://[::1", "for example"),
        ("http://me:secret@a.example", "without user and password"),
        ("http://secret@a.example", "without user and password"),
        ("http://a.example?x=1", "without ?"),
        ("http://a.example/#x", "without ?"),
        ("http://faß.example", "xn--"),
        ("http://\uff11\uff12\uff17.0.0.1:8700", "xn--"),
        ("http://a b", "for example"),
        ("http://a.example\n", "for example"),
        ("http://a..example", "for example"),
    ],
)
def test_what_is_no_url_of_a_platform_is_refused_in_words(nebula: Nebula, url: str, says: str) -> None:
    ran = nebula("vm", "list", "--url", url, "--token", "t")
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err and "secret" not in ran.err


@pytest.mark.parametrize(
    ("given", "as_url"),
    [
        ("HTTP://A.Example:8700/", "http://a.example:8700"),
        ("https://a.example:443/base/", "https://a.example/base"),
        ("http://a.example.", "http://a.example."),
        ("http://xn--fa-hia.example", "http://xn--fa-hia.example"),
    ],
)
def test_a_url_is_read_as_it_is_meant(given: str, as_url: str) -> None:
    assert Client(given, None, print).url == as_url
    assert Client(given, None, print).socket("/x")[0] == as_url.replace("http", "ws", 1) + "/x"


@pytest.mark.parametrize("option", ["--token", "--key"])
@pytest.mark.parametrize("value", ["a b", "a\r\nX: y", "é", "\u2028"])
def test_what_no_header_can_hold_is_refused(nebula: Nebula, platform: Platform, option: str, value: str) -> None:
    ran = nebula("tag", "create", "x", option, value)
    assert ran.status == 2 and "visible ASCII" in ran.err
    assert not platform.requests


PRIVATE = {
    "openssh": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKC\n-----END RSA PRIVATE KEY-----\n",
    "pkcs8": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgk\n-----END ENCRYPTED PRIVATE KEY-----\n",
    "putty": "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nSECRETSECRET\n",
    "below a public one": "ssh-ed25519 AAAAC3Nz me\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n",
    "without its frame": "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n",
    "behind a byte order mark": "\ufeff-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKC\n-----END PRIVATE KEY-----\n",
    "age": "# created: 2026-01-01\nAGE-SECRET-KEY-1SECRETSECRET\n",
    "gpg": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nSECRETSECRET\n-----END PGP PRIVATE KEY BLOCK-----\n",
    "ssh.com": "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nSECRETSECRET\n",
}
#: What does not say what it is.
OTHER = {
    "a line of PEM": "MIIEowIBAAKCAQEAzSECRETSECRET",
    "json web key": '{"kty": "OKP", "d": "SECRETSECRET"}',
    "utf-16": "-----BEGIN PRIVATE KEY-----\nSECRET\n".encode("utf-16-le").decode(),
    "wireguard": "SECRETSECRETSECRETSECRETSECRETSECRETSECRETSE=",
    "public key and a secret": f"{KEY}\nSECRETSECRET",
    "options": f'command="SECRET" {KEY}',
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


@pytest.mark.parametrize("kind", OTHER)
def test_what_is_no_public_key_is_not_sent_and_not_shown(
    nebula: Nebula, platform: Platform, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "id_ed25519"
    file.write_text(OTHER[kind])
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", f"--ssh-key={file}")
    assert ran.status == 2 and "nothing was sent" in ran.err
    assert "SECRET" not in ran.err and "MII" not in ran.err
    assert not platform.keys("POST")


@pytest.mark.parametrize("given", ["MIIEowIBAAKCAQEAzSECRET\nSECRETSECRET\n", "SECRET" * 50, "Proc-Type: 4\rSECRET\n"])
def test_what_is_no_path_either_is_not_repeated(nebula: Nebula, platform: Platform, given: str) -> None:
    ran = nebula("vm", "create", "web-1", "--image", "debian-12", f"--ssh-key={given}")
    assert ran.status == 2 and "nothing was sent" in ran.err
    assert "SECRET" not in ran.err and not platform.keys("POST")


def test_the_path_of_a_key_may_be_long(nebula: Nebula, platform: Platform, tmp_path: Path) -> None:
    file = tmp_path.joinpath(*["n" * 100] * 4, "id_ed25519.pub")
    file.parent.mkdir(parents=True)
    file.write_text(KEY)
    assert nebula("vm", "create", "web-1", "--image", "debian-12", f"--ssh-key={file}").status == 0


@pytest.mark.parametrize("text", [f"\ufeff{KEY} me\r\n", f"# mine\n\n  {KEY}\n", f"{KEY} é"])
def test_a_public_key_is_sent(nebula: Nebula, platform: Platform, tmp_path: Path, text: str) -> None:
    file = tmp_path / "id_ed25519.pub"
    file.write_text(text)
    assert nebula("vm", "create", "web-1", "--image", "debian-12", f"--ssh-key={file}").status == 0
    (vm,) = platform.vms.values()
    assert [key.startswith(KEY) for key in vm["ssh_keys"]] == [True]
