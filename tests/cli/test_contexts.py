"""Contexts: whose token is sent where, and which files are neither read nor written."""

import io
import json
import multiprocessing
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.client import issuer
from cli.client.contexts import FILE, Context, Contexts, Login, Store, config_folder
from cli.client.credentials import DEFAULT_URL, Given, target
from cli.client.errors import CliError, Unreachable, Usage
from runtime.tls.authority import ensure_authority, ensure_server
from runtime.tls.contexts import ServerTls
from tests.cli.conftest import Nebula
from tests.cli.fake import Platform
from tests.cli.serving import serving

OTHER = 12345
HERE, THERE, ELSEWHERE = "http://127.0.0.1:8701", "https://cloud.example.org", "https://other.example.org"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "config" / "nebula")


@pytest.fixture
def free(nebula: Nebula, monkeypatch: pytest.MonkeyPatch) -> Nebula:
    """Without a platform in the environment."""
    monkeypatch.delenv("NEBULA_URL")
    return nebula


@pytest.fixture
def other() -> Iterator[Platform]:
    with serving(Platform()) as running:
        running.token = "theirs"
        yield running


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def keeps(store: Store, current: str | None = None, **contexts: Context) -> None:
    store.update(lambda _: Contexts(current, contexts))


def test_each_platform_gets_its_own_token(
    free: Nebula, platform: Platform, other: Platform, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    platform.token = "ours"
    typed(monkeypatch, "ours\n")
    ran = free("login", platform.url, "--token-stdin", "--name", "home")
    assert ran.status == 0 and "as ada" in ran.out and "ours" not in ran.out + ran.err
    typed(monkeypatch, "theirs")
    assert free("login", other.url, "--token-stdin", "--name", "work").status == 0
    file = store.folder / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    other.shown.clear()
    platform.shown.clear()
    assert free("vm", "list").status == 0
    assert (other.shown, platform.shown) == (["Bearer theirs"], [])
    assert free("vm", "list", "--url", platform.url).status == 0
    assert platform.shown == ["Bearer ours"]
    assert free("context", "use", "home").status == 0
    assert free("vm", "list").status == 0
    assert platform.shown == ["Bearer ours"] * 2 and other.shown == ["Bearer theirs"]
    listed = free("context", "list", "-o", "json")
    assert [(row["name"], row["in_use"], row["login"]) for row in listed.json["items"]] == [
        ("home", True, "token"),
        ("work", False, "token"),
    ]
    assert "ours" not in listed.out and "theirs" not in free("context", "list").out
    assert free("logout").status == 0
    assert "ours" not in file.read_text() and "theirs" in file.read_text()
    ran = free("vm", "list")
    assert ran.status == 1 and f"nebula login {platform.url}" in ran.err and platform.shown[-1] is None
    assert free("context", "remove", "home").status == 0
    assert free("vm", "list", "--url", platform.url).status == 1 and platform.shown[-1] is None
    assert free("context", "use", "none").status == 2
    assert free("context", "remove", "none").status == 2


def test_what_others_say_does_not_act_on_the_terminal(free: Nebula, platform: Platform, store: Store) -> None:
    platform.me = "ada\x1b[2J\nFORGED"
    ran = free("login", platform.url)
    assert ran.status == 0 and ran.out.count("\n") == 1 and "\x1b" not in ran.out
    keeps(store, None, x=Context(f"{THERE}/\x1b[2J\n", "t"))
    assert "\x1b" not in free("context", "list").out


def test_a_token_that_is_refused_is_not_kept(
    free: Nebula, platform: Platform, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    platform.token = "ours"
    for text in ("wrong\n", "", "two words\n", "é\n", "x" * 20_000):
        typed(monkeypatch, text)
        assert free("login", platform.url, "--token-stdin").status != 0
    typed(monkeypatch, "ours\n")
    ran = free("login", platform.url)
    assert ran.status == 2 and "--token-stdin" in ran.err
    assert store.read() == Contexts()


@pytest.mark.parametrize("url", ["http://cloud.example.org", "http://10.0.0.1:8700", "http://127.evil.example"])
def test_no_token_goes_over_an_open_network(free: Nebula, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    typed(monkeypatch, "secret\n")
    ran = free("login", url, "--token-stdin")
    assert ran.status == 2 and "TLS" in ran.err and "secret" not in ran.err


def test_a_name_is_of_one_platform(free: Nebula, platform: Platform, other: Platform) -> None:
    assert free("login", platform.url).status == 0  # it needs no token
    assert free("login", platform.url).status == 0
    for name, says in (
        ("127.0.0.1", "another --name"),
        ("local", "cannot be"),
        ("../x", "cannot be"),
        ("a b", "cannot"),
    ):
        ran = free("login", other.url, "--name", name)
        assert ran.status == 2 and says in ran.err
    assert [row["name"] for row in free("context", "list", "-o", "json").json["items"]] == ["127.0.0.1"]


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """The home of a platform on this machine."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "admin.token").write_text("local\n")
    (home / "api.url").write_text(HERE)
    return home


CLOUD = Context(THERE, "cloud")


@pytest.mark.parametrize(
    ("line", "environment", "named", "url", "token"),
    [
        (Given(), Given(), False, THERE, "cloud"),
        (Given(), Given(), True, HERE, "local"),
        (Given(url=THERE), Given(), True, THERE, "cloud"),
        (Given(url=HERE), Given(), False, HERE, "local"),
        (Given(url=ELSEWHERE), Given(), False, ELSEWHERE, None),
        (Given(url=f"{THERE}:444"), Given(), False, f"{THERE}:444", None),
        (Given(url=f"{THERE}.evil.example"), Given(), False, f"{THERE}.evil.example", None),
        (Given(url="http://cloud.example.org"), Given(), False, "http://cloud.example.org", None),
        (Given(), Given(url=HERE), False, HERE, "local"),
        (Given(), Given(url=ELSEWHERE), False, ELSEWHERE, None),
        (Given(), Given(url=THERE), False, THERE, "cloud"),
        (Given(), Given(token="env"), False, HERE, "env"),
        (Given(), Given(url=ELSEWHERE, token="env"), False, ELSEWHERE, "env"),
        (Given(), Given(url=THERE, token="env"), False, THERE, "env"),
        (Given(url=THERE), Given(token="env"), False, THERE, "cloud"),
        (Given(url=ELSEWHERE), Given(token="env"), False, ELSEWHERE, None),
        (Given(token="line"), Given(), False, HERE, "line"),
        (Given(url=THERE, token="line"), Given(), False, THERE, "line"),
    ],
)
def test_what_counts_first(
    store: Store,
    local: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: Given,
    environment: Given,
    named: bool,
    url: str,
    token: str | None,
) -> None:
    """`named`: whether NEBULA_HOME names the home."""
    keeps(store, "cloud", cloud=CLOUD, spare=Context(ELSEWHERE))
    monkeypatch.setattr("cli.client.credentials.default_homes", lambda: [local])
    found = target(line, environment, local if named else None, store)
    assert (found.url, found.token) == (url, token)


def test_without_a_context_in_use_it_is_this_machine(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keeps(store, None, cloud=CLOUD)
    monkeypatch.setattr("cli.client.credentials.default_homes", lambda: [local])
    assert target(Given(), Given(), None, store).token == "local"
    monkeypatch.setattr("cli.client.credentials.default_homes", list)
    assert target(Given(), Given(), None, store).url == DEFAULT_URL
    keeps(store, "cloud", cloud=CLOUD)
    assert target(Given(), Given(), tmp_path / "none", store).token == "cloud"  # no platform is in that home


def readable(folder: Path) -> None:
    (folder / FILE).chmod(0o640)


def open_folder(folder: Path) -> None:
    folder.chmod(0o770)


def others_file(folder: Path) -> None:
    os.chown(folder / FILE, OTHER, OTHER)


def others_folder(folder: Path) -> None:
    os.chown(folder, OTHER, OTHER)


def linked_file(folder: Path) -> None:
    (folder / FILE).rename(folder / "real")
    (folder / FILE).symlink_to("real")


def others_link(folder: Path) -> None:
    folder.rename(folder.with_name("real"))
    folder.symlink_to("real")
    os.chown(folder, OTHER, OTHER, follow_symlinks=False)


def others_parent(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name("real"))
    folder.parent.symlink_to("real")
    os.chown(folder.parent, OTHER, OTHER, follow_symlinks=False)


def pipe(folder: Path) -> None:
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE, 0o600)


def damaged(folder: Path) -> None:
    (folder / FILE).write_text('{"all": {"cloud": {}}, "current": "cloud", "version": 1}')


def no_json(folder: Path) -> None:
    (folder / FILE).write_bytes(b"\xff\xfe")


def huge(folder: Path) -> None:
    (folder / FILE).write_bytes(b" " * 2_000_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize(
    "spoil",
    [
        readable,
        open_folder,
        others_file,
        others_folder,
        linked_file,
        others_link,
        others_parent,
        pipe,
        damaged,
        no_json,
        huge,
    ],
)
def test_an_unsafe_file_is_neither_read_nor_written(store: Store, free: Nebula, spoil: Callable[[Path], None]) -> None:
    keeps(store, "cloud", cloud=CLOUD)
    spoil(store.folder)
    for call in (store.read, lambda: store.update(lambda found: found)):
        with pytest.raises(Usage) as refused:
            call()
        assert "cloud.example" not in str(refused.value)
    ran = free("vm", "list")
    assert ran.status == 2 and "Traceback" not in ran.err
    assert target(Given(url=THERE, token="line"), Given(), None, store).token == "line"  # it does not need the file
    assert target(Given(), Given(url=THERE, token="env"), None, store).token == "env"


def test_ones_own_link_is_followed(store: Store) -> None:
    keeps(store, "cloud", cloud=CLOUD)
    store.folder.rename(store.folder.with_name("dotfiles"))
    store.folder.symlink_to("dotfiles")
    assert store.read().all == {"cloud": CLOUD}


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_folder(None) == config_folder(Path("relative")) == tmp_path / ".config" / "nebula"
    assert config_folder(Path("/xdg")) == Path("/xdg/nebula")


def _adds(folder: Path, number: int) -> None:
    Store(folder).update(lambda found: Contexts(found.current, {**found.all, f"c{number}": Context(THERE, "t")}))


def test_processes_that_write_lose_nothing(store: Store) -> None:
    keeps(store)
    started = [multiprocessing.get_context("fork").Process(target=_adds, args=(store.folder, n)) for n in range(8)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert set(store.read().all) == {f"c{n}" for n in range(8)}
    assert {each.name for each in store.folder.iterdir()} == {FILE, "contexts.lock"}


def test_a_write_that_fails_leaves_the_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps(store, "cloud", cloud=CLOUD)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Usage, match="disk is full"):
        keeps(store)
    monkeypatch.undo()
    assert store.read().all == {"cloud": CLOUD}
    assert {each.name for each in store.folder.iterdir()} == {FILE, "contexts.lock"}


LOGIN = Login("https://login.test", "nebula-cli", "nebula", "https://login.test/token", 0.0, "refresh-1")


def answering(
    monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, dict[str, Any]] | Exception
) -> list[dict[str, str]]:
    """The forms that the issuer gets; it gives these answers."""
    forms: list[dict[str, str]] = []
    left = list(answers)

    def post(url: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        forms.append(form)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(issuer, "_post", post)
    return forms


def token(name: str, audience: Any = "nebula") -> str:
    from tests.gateway.test_oidc import encoded

    return f"{encoded({})}.{encoded({'aud': audience, 'name': name})}.x"


def test_a_token_is_renewed_once_before_it_expires(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Context(THERE, token("old"), LOGIN)
    keeps(store, "cloud", cloud=old)
    new = {"access_token": token("new"), "refresh_token": "refresh-2", "expires_in": 600}
    forms = answering(monkeypatch, (200, new))
    found = target(Given(), Given(), None, store)
    assert found.renew is not None
    assert found.renew() == token("new")
    assert found.renew() == token("new")
    assert issuer.renewed(store, "cloud", old) == token("new")  # as a process that has read the file before
    assert [form["refresh_token"] for form in forms] == ["refresh-1"]
    kept = store.read().all["cloud"].login
    assert kept is not None and kept.refresh_token == "refresh-2"
    assert 500 < kept.renew_at - time.time() < 600


def test_a_login_that_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps(store, "cloud", cloud=Context(THERE, token("old"), LOGIN))
    answering(monkeypatch, (400, {"error": "invalid_grant"}))
    with pytest.raises(CliError, match="nebula login https://cloud"):
        issuer.renewed(store, "cloud", store.read().all["cloud"])


def test_an_issuer_that_is_away_does_not_matter_while_the_token_is_valid(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = Login(**{**vars(LOGIN), "renew_at": time.time() - 1})
    keeps(store, "cloud", cloud=Context(THERE, token("old"), soon), late=Context(THERE, token("old"), LOGIN))
    answering(monkeypatch, Unreachable("away"), Unreachable("away"))
    assert issuer.renewed(store, "cloud", store.read().all["cloud"]) == token("old")
    with pytest.raises(Unreachable):
        issuer.renewed(store, "late", store.read().all["late"])


OFFER = {"issuer": "https://login.test", "client_id": "nebula-cli", "audience": "nebula", "scopes": ["openid"]}
ABOUT = {
    "issuer": "https://login.test",
    "token_endpoint": "https://login.test/token",
    "device_authorization_endpoint": "https://login.test/device",
}
BEGUN = {"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://login.test/go", "interval": 2}


def device(monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], *answers: Any) -> tuple[list[float], list[str]]:
    """The pauses between questions, and what is said. Time passes in pauses only."""
    pauses: list[float] = []
    monkeypatch.setattr(issuer, "_asked", lambda *_: (200, about))
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(pauses))
    answering(monkeypatch, *answers)
    return pauses, []


def pending(error: str) -> tuple[int, dict[str, Any]]:
    return 400, {"error": error}


def test_the_device_flow_is_as_patient_as_it_is_told_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, said = device(
        monkeypatch,
        ABOUT,
        (200, BEGUN),
        pending("authorization_pending"),
        pending("slow_down"),
        Unreachable("away"),
        (200, {"access_token": "opaque", "id_token": token("id", ["nebula"]), "expires_in": 60}),
    )
    found, login = issuer.log_in(OFFER, said.append)
    assert found == token("id", ["nebula"])  # the access token is for the issuer only
    assert pauses == [2.0, 2.0, 7.0, 14.0]
    assert login.refresh_token is None
    assert any("AB-CD" in line for line in said) and "https://login.test/go" in said[0]


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([(200, BEGUN), pending("access_denied")], "refused"),
        ([(200, BEGUN), pending("expired_token")], "in time"),
        ([(200, BEGUN | {"expires_in": 3}), pending("authorization_pending")], "in time"),
        ([(200, BEGUN), pending("invalid_client\x1b[2J")], "refused"),
        ([pending("unauthorized_client")], "unauthorized_client"),
        ([(200, BEGUN | {"verification_uri": "javascript:x"})], "none of the web"),
        ([(200, BEGUN | {"device_code": None})], "device_code"),
        ([(200, BEGUN), (200, {"access_token": token("x", "other"), "expires_in": 60})], "gave no token"),
        ([(200, BEGUN), (200, {"access_token": "a.b.c"})], "gave no token"),
        ([(200, BEGUN), (200, {})], "gave no token"),
    ],
)
def test_a_login_that_fails(monkeypatch: pytest.MonkeyPatch, answers: list[Any], says: str) -> None:
    _, said = device(monkeypatch, ABOUT, *answers)
    with pytest.raises(CliError, match=says) as failed:
        issuer.log_in(OFFER, said.append)
    assert "\x1b" not in str(failed.value)


@pytest.mark.parametrize(
    ("offer", "about"),
    [
        ({"issuer": "http://login.test"}, {}),
        ({"issuer": "https://a@login.test"}, {}),
        ({"issuer": 7}, {}),
        ({}, {"issuer": "https://evil.test"}),
        ({}, {"token_endpoint": "http://login.test/token"}),
        ({}, {"token_endpoint": "http://127.0.0.1:22/"}),
        ({}, {"device_authorization_endpoint": None}),
    ],
)
def test_an_issuer_that_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, offer: dict[str, Any], about: dict[str, Any]
) -> None:
    _, said = device(monkeypatch, ABOUT | about, (200, BEGUN))
    with pytest.raises(CliError):
        issuer.log_in(OFFER | offer, said.append)
    assert not said


def test_a_platform_without_an_issuer_takes_a_token(
    free: Nebula, platform: Platform, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """Typed, if somebody is there to type it."""
    platform.token = "ours"
    monkeypatch.setattr("cli.commands.contexts.getpass.getpass", lambda _: "ours")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert free("login", platform.url).status == 0
    assert json.loads((store.folder / FILE).read_text())["all"]["127.0.0.1"]["token"] == "ours"


def test_a_platform_with_an_authority_of_its_own(free: Nebula, tmp_path: Path, store: Store) -> None:
    """It is trusted for this platform only, and without it nothing is sent."""
    shown: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown.append(self.headers["Authorization"])
            login = {"token_needed": False, "oidc": None}
            answers = {"/v1/login": login, "/v1/me": {"principal": "ada"}}
            body = json.dumps(answers.get(self.path, {"items": [], "next_page_token": None})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    authority = ensure_authority(tmp_path / "tls")
    assert ensure_server(tmp_path / "tls", authority, ["localhost", "127.0.0.1"])
    context = ServerTls(tmp_path / "tls" / "server.pem").context
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"https://127.0.0.1:{server.server_port}"
        assert free("login", url).status == 3 and not shown
        assert free("login", url, "--ca", str(tmp_path / "none")).status == 2
        ca = tmp_path / "ca.pem"
        ca.write_bytes(authority.pem)
        assert free("login", url, "--ca", str(ca)).status == 0
        assert free("vm", "list").status == 0
        assert free("vm", "list", "--url", url.replace("127.0.0.1", "localhost")).status == 0  # the same listener
        assert store.read().all["127.0.0.1"].ca == str(ca)

        # the authority belongs to the URL: for a token of the command line, and for later logins of any name
        assert free("vm", "list", "--url", url, "--token", "t").status == 0
        for more in ((), ("--name", "other")):
            assert free("login", url, *more).status == 0
        assert {each.ca for each in store.read().all.values()} == {str(ca)}
        before = len(shown)
        strange = tmp_path / "strange.pem"
        strange.write_bytes(ensure_authority(tmp_path / "strange").pem)
        assert free("login", url, "--ca", str(strange)).status == 3, "the one that is named, and no other"
        ca.write_bytes(strange.read_bytes())
        for words in (("login", url), ("vm", "list"), ("vm", "list", "--url", url, "--token", "t")):
            assert free(*words).status == 3
        ca.unlink()
        assert free("login", url).status == 2, "it does not fall back to the authorities of the host"
        assert len(shown) == before
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
