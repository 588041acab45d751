"""Where images may be fetched from: judged as values, and never by a connection to what must be refused."""

from ipaddress import ip_address
from pathlib import Path

import httpcore
import httpx
import pytest

from runtime.images import download as downloads
from runtime.images.download import Part, download
from runtime.images.image_client import CheckedBackend, Transport, client, send
from runtime.images.image_hosts import Address, Denied, ImageHosts
from runtime.settings import HandlersSettings, NodeSettings
from runtime.text.urls import secret, shown
from tests.image_server import LOOPBACK, serving

NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.192",
    "100.100.100.200",
    "192.0.2.1",
    "198.51.100.7",
    "203.0.113.9",
    "192.88.99.1",
    "::",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff05::2",
    "fd00:ec2::254",
    "2001:db8::1",
    "2001:0:1:2:3:4:5:6",
    "100::1",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::ffff:0.0.0.0",
    "64:ff9b::e000:1",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:ffff::e000:1",
]
PRIVATE = [
    "10.0.0.5",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.7",
    "192.168.122.1",
    "100.64.0.1",
    "198.18.0.1",
    "fd12::1",
    "fc00::1",
    "64:ff9b:1::a00:5",
    "4000::1",
    "5f00::1",
    "::ffff:10.0.0.5",
    "64:ff9b::a00:5",
    "2002:0a00:0005::1",
    "::10.0.0.5",
]
LOCAL = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
PUBLIC = [
    "1.1.1.1",
    "9.9.9.9",
    "151.101.2.132",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1",
    "64:ff9b::101:101",
    "2002:101:101::1",
]


def allowed(hosts: ImageHosts, address: str, host: str = "images.example", port: int = 443) -> bool:
    try:
        hosts.check(host, ip_address(address), port)
    except Denied:
        return False
    return True


@pytest.mark.parametrize("address", [*NEVER, *PRIVATE, *LOCAL])
def test_refused_unless_named(address: str) -> None:
    assert not allowed(ImageHosts(), address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones_are_allowed(address: str) -> None:
    assert allowed(ImageHosts(), address)


@pytest.mark.parametrize("address", NEVER)
def test_some_are_refused_whatever_is_set(address: str) -> None:
    assert not allowed(ImageHosts.of(f"*,0.0.0.0/0,::/0,{address}"), address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones_by_address_network_or_name(address: str) -> None:
    inner = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,198.18.0.0/15,fc00::/7,64:ff9b:1::/48,4000::/3"
    assert allowed(ImageHosts.of(f"{inner},5f00::/16"), address)
    assert allowed(ImageHosts.of("*.lan, files"), address, host="store.LAN.")
    assert allowed(ImageHosts.of("*.lan, files"), address, host="files")
    assert not allowed(ImageHosts.of("*.lan"), address, host="lan.example")
    assert not allowed(ImageHosts.of("10.0.0.6,fd13::/16"), address)


@pytest.mark.parametrize("address", LOCAL)
def test_loopback_by_its_own_addresses_alone(address: str) -> None:
    assert allowed(ImageHosts.of("127.0.0.0/8,::1"), address)
    for setting in ("*", "0.0.0.0/0,::/0", "*.lan", "images.example"):
        assert not allowed(ImageHosts.of(setting), address), setting


def test_the_refusal_says_what_helps() -> None:
    with pytest.raises(Denied, match=r"NEBULA_IMAGE_HOSTS=10\.0\.0\.5 "):
        ImageHosts().check("store.lan", ip_address("10.0.0.5"), 80)


@pytest.mark.parametrize("port", [4222, 5432, 6222, 8222, 8700, 8775, 9177, 14222, 18700, 4333])
def test_the_platforms_own_ports(port: int) -> None:
    settings = HandlersSettings(
        image_hosts="*,127.0.0.1", nats_url="nats://a:14222,nats://b:4333/", platform_ports="18700,18775"
    )
    for address in ("127.0.0.1", "10.0.0.1", "1.1.1.1"):
        assert not allowed(settings.fetch_from, address, port=port)
        assert allowed(settings.fetch_from, address, port=8080)


@pytest.mark.parametrize("bad", ["http://x/", "10.0.0.0/33", "1.2.3", "a b", "[::1]", "user@host", "-x"])
def test_a_bad_setting_is_refused_at_start(bad: str) -> None:
    with pytest.raises(ValueError, match="image_hosts"):
        NodeSettings(image_hosts=bad)


async def found(hosts: ImageHosts, *addresses: str, host: str = "images.example") -> list[str]:
    async def resolve(name: str, port: int) -> list[Address]:
        return [ip_address(address) for address in addresses]

    return [str(address) for address in await CheckedBackend(hosts, resolve).addresses(host, 80, 1)]


async def test_only_judged_addresses_are_connected_to() -> None:
    assert await found(ImageHosts(), "10.0.0.1", "1.1.1.1", "127.0.0.1") == ["1.1.1.1"]
    with pytest.raises(Denied):
        await found(ImageHosts(), "10.0.0.1", "::ffff:127.0.0.1")
    with pytest.raises(Denied):
        await found(ImageHosts(), "1.1.1.1", host="169.254.169.254")
    with pytest.raises(httpcore.ConnectError):
        await found(ImageHosts())


@pytest.mark.parametrize("host", ["fe80::1%lo", "::1%lo", "fd00:ec2::254%eth0", "::ffff:169.254.169.254%1"])
async def test_an_address_with_a_zone_is_that_address(host: str) -> None:
    with pytest.raises(Denied):
        await CheckedBackend(ImageHosts.of("*,fd00::/8")).addresses(host, 80, 1)


def test_a_sites_own_nat64_leads_to_this_host_as_well() -> None:
    for setting in ("*", "64:ff9b:1::/48", "64:ff9b:1::/48,10.0.0.0/8"):
        assert not allowed(ImageHosts.of(setting), "64:ff9b:1::7f00:1"), setting


class Recording(httpcore.AsyncNetworkBackend):
    """Connects nowhere, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def connect_tcp(self, host: str, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        return httpcore.AsyncMockStream([b"HTTP/1.1 302 Found\r\nLocation: http://inner.example/\r\n\r\n"])


async def test_a_name_that_changes_is_judged_again_at_a_redirect() -> None:
    answers = iter(["1.1.1.1", "127.0.0.1"])

    async def resolve(name: str, port: int) -> list[Address]:
        return [ip_address(next(answers))]

    backend, recording = CheckedBackend(ImageHosts(), resolve), Recording()
    backend._backend = recording  # type: ignore[assignment]
    async with httpx.AsyncClient(transport=Transport(backend), trust_env=False) as asking:
        with pytest.raises(Denied):
            await send(asking, asking.build_request("GET", "http://rebinds.example/"))
    assert recording.asked == ["1.1.1.1"], "the address, and no name that could be resolved to another one"


async def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1/")
    async with serving(b"x" * 4096) as server, client(LOOPBACK, httpx.Timeout(5)) as asking:
        assert (await asking.get(server.url)).content == b"x" * 4096


def unheard(*_: object) -> None:
    """Nobody wants to know."""


async def tried(url: str, folder: Path, hosts: ImageHosts = LOOPBACK) -> Exception:
    with pytest.raises((Denied, downloads.NotFound, downloads.Interrupted, downloads.TooLong)) as caught:
        await download(url, Part(folder / "i.part"), hosts=hosts, tell=unheard, check=unheard, most=10**6)
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "http://xn--/",
        "http://h:99999/",
        "http://[::1/",
        "http://::1/",
        "http:///i",
        "http://\x00/",
        "http://a\ud800b/",
        "http://h:-1/",
        "http://" + "a" * 70000 + "/",
        "http://" + "ü" * 80 + "/",
        "http://a..b/",
        "http://0x7f.1/",
        "http://2130706433/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
    ],
)
async def test_what_is_no_url_is_a_verdict(url: str, tmp_path: Path) -> None:
    await tried(url, tmp_path, ImageHosts())


REDIRECT = "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n"
ANSWERS = {
    "redirect to a file": REDIRECT.format("file:///etc/passwd"),
    "redirect to no port": REDIRECT.format("http://127.0.0.1:99999/"),
    "redirect to no host": REDIRECT.format("http://xn--/"),
    "redirect to the metadata": REDIRECT.format("http://169.254.169.254/latest"),
    "redirect to the platform": REDIRECT.format("http://127.0.0.1:4222/"),
    "redirect to nothing": REDIRECT.format(""),
    "redirect in a circle": REDIRECT.format("/image"),
    "redirect with control characters": REDIRECT.format("http://a\x01b/"),
    "length that is none": "HTTP/1.1 200 OK\r\nContent-Length: twelve\r\n\r\n",
    "length below zero": "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    "length beyond measure": "HTTP/1.1 200 OK\r\nContent-Length: " + "9" * 5000 + "\r\n\r\n",
    "two lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "chunks of garbage": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
    "no HTTP": "SSH-2.0-OpenSSH_9.2\r\n",
    "headers without an end": "HTTP/1.1 200 OK\r\n" + "X: " + "y" * 200_000,
    "header that is none": "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "status that is none": "HTTP/1.1 999999 \x1b[31m\r\n\r\n",
    "rest that was not asked for": "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-1/x\r\n\r\n",
    "nothing": "",
    "too much": "HTTP/1.1 200 OK\r\n\r\n" + "x" * 2_000_000,
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_nonsense_answer_is_a_verdict(name: str, tmp_path: Path) -> None:
    async with serving() as server:
        server.raw = ANSWERS[name].encode("latin-1")
        said = str(await tried(f"{server.url}?token=hunter2", tmp_path))
    assert said.isprintable()
    assert len(said) < 600
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "note",
    [
        {"Content-Range": "bytes " + "9" * 5000 + "-1/*"},
        {"Content-Range": "bytes \u0661-\u0662/\u0663"},
        {"Content-Range": "bytes 0-9/" + "9" * 30},
    ],
)
async def test_a_nonsense_rest_is_fetched_anew(note: dict[str, str], tmp_path: Path) -> None:
    part = Part(tmp_path / "i.part")
    async with serving(b"x" * 4096) as server:
        server.cut = 1024
        await tried(server.url, tmp_path)
        assert part.size == 1024
        headers = "".join(f"{name}: {value}\r\n" for name, value in note.items())
        server.raw = f"HTTP/1.1 206 Partial Content\r\n{headers}\r\nrest".encode()
        await tried(server.url, tmp_path)
        assert part.size == 0
        server.raw, server.cut = None, None
        await download(server.url, part, hosts=LOOPBACK, tell=unheard, check=unheard, most=4096)
    assert part.size == 4096


async def test_an_etag_that_no_header_can_carry(tmp_path: Path) -> None:
    async with serving(b"x" * 4096) as server:
        server.etag, server.cut = '"ü"', 1024
        await tried(server.url, tmp_path)
        server.cut = None
        part = Part(tmp_path / "i.part")
        assert not await download(server.url, part, hosts=LOOPBACK, tell=unheard, check=unheard, most=4096)


async def test_a_source_that_trickles_or_takes_too_long_is_given_up() -> None:
    pace = downloads.Pace(least=100, window=10, whole=1000)
    watch = downloads.Watch(pace, 0.0)
    for second in range(1, 40):
        watch.received(100, float(second), "i")
    with pytest.raises(downloads.Interrupted, match="100 bytes per second"):
        for second in range(40, 60):
            watch.received(50, float(second), "i")
    watch = downloads.Watch(pace, 0.0)
    with pytest.raises(downloads.Interrupted, match="longer than 1000 s"):
        for second in range(1, 1100):
            watch.received(1000, float(second), "i")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://u:pw@h/i", "https://***@h/i"),
        ("https://h/i?X-Amz-Signature=abc&X-Amz-Expires=9", "https://h/i?X-Amz-Signature=***&X-Amz-Expires=***"),
        ("https://h/i?sig=a%2Fb;token=c", "https://h/i?sig=***;token=***"),
        ("https://h/i?abcdef", "https://h/i?***"),
        ("https://a@b@h:1/i?a=b=c#key", "https://***@h:1/i?a=***"),
        ("http://[::1/?token=abc", "http://***"),
    ],
)
def test_what_is_shown_of_a_url(url: str, seen: str) -> None:
    assert shown(url) == seen
    assert secret(url)
    assert not secret(seen)


@pytest.mark.parametrize("source", ["/images/a.raw", "/images/a?sig=1@b", "https://h:8/i.qcow2", "http://[::1]/i"])
def test_what_holds_no_secret_is_shown_as_it_is(source: str) -> None:
    assert shown(source) == source
    assert not secret(source)
