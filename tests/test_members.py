"""The servers of a cluster: what a setting names, and what each of them is told."""

from pathlib import Path

import pytest

from cli.local.bus_authority import of
from runtime.local.servers import NATS_CONF
from runtime.members import Member, clustered, members
from runtime.settings import AuthoritySettings

THREE = "a=10.0.0.1,b=10.0.0.2,c=10.0.0.3"


def test_names_and_addresses_are_read() -> None:
    assert members(f" {THREE} ") == (Member("a", "10.0.0.1"), Member("b", "10.0.0.2"), Member("c", "10.0.0.3"))
    assert members("a=fd00::1,b=fd00::2,c=fd00::3")[0].route == "[fd00::1]:6222"
    assert members("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "a=10.0.0.1,b=10.0.0.2",
        "a=10.0.0.1,a=10.0.0.2,c=10.0.0.3",
        "a=10.0.0.1,b=10.0.0.1,c=10.0.0.3",
        "a=host-1,b=host-2,c=host-3",
        "a,b,c",
        "=10.0.0.1,b=10.0.0.2,c=10.0.0.3",
        'a"=10.0.0.1,b=10.0.0.2,c=10.0.0.3',
        "../x=10.0.0.1,b=10.0.0.2,c=10.0.0.3",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        members(text)


def test_each_server_syncs_always_and_asks_the_others_who_they_are() -> None:
    three = members(THREE)
    for member in three:
        conf = clustered(NATS_CONF.read_text(), member, three, Path("/etc/nats"))
        assert "sync_interval: always" in conf
        assert f"server_name: {member.name}\n" in conf
        assert f'host: "{member.address}"' in conf
        assert conf.count("verify: true") == 1
        assert conf.count("cert_file") == 2
        assert all(one.route in conf for one in three)


def test_each_server_gets_its_own_certificate_and_no_other_key(tmp_path: Path) -> None:
    settings = AuthoritySettings(home=tmp_path / "keys", bus_files=tmp_path / "files", bus_servers=THREE)
    of(settings).renew()
    pems = {(tmp_path / "files" / f"server-{name}" / "server.pem").read_text() for name in "abc"}
    assert len(pems) == 3
    for name in "abc":
        folder = tmp_path / "files" / f"server-{name}"
        assert {path.name for path in folder.iterdir()} == {"nats.conf", "server.pem", "ca.pem"}
        assert not folder.stat().st_mode & 0o007
    for role in ("handlers", "gateway", "projections", "guest-data"):
        assert "PRIVATE KEY" not in (tmp_path / "files" / role / "ca.pem").read_text()
    before = (tmp_path / "files" / "server-a" / "server.pem").read_text()
    of(settings).renew()
    assert (tmp_path / "files" / "server-a" / "server.pem").read_text() == before
