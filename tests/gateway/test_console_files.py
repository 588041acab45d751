"""The files of the console: what is served to whom, with which headers, and what is not there."""

import gzip
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.console import shell, vendor
from gateway.console.files import TYPES, WEB, read
from gateway.console.routes import Console, accepts_gzip
from gateway.http.problems import Problem
from gateway.state import Gateway
from tests.gateway.platform import Platform, served

PAGES = ("/", "/console", "/console/", "/console/projects/default/vms?at=5", "/console/no/such/page")


def packages(folder: Path) -> Path:
    """Packages with the files that the console asks for first."""
    for package, proof in vendor.PROOF.items():
        file = folder / package / proof
        file.parent.mkdir(parents=True)
        file.write_text(f"export default '{package}';\n")
    for path in vendor.JOINED:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("export{a as html,a as nothing,a as render};\n")
    (folder / "lit-html" / "package.json").write_text("{}")
    (folder / "secret.js").write_text("secret")
    return folder


@pytest.fixture
async def site(api: Platform, tmp_path: Path) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    file = tmp_path / "tokens"
    file.write_text(f"alice {hashlib.sha256(b'a').hexdigest()}\n")
    files = packages(tmp_path / "node_modules")
    async with (
        served(api.side, api.dsn, tokens_file=file, home=tmp_path, console_files=files) as (gateway, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield gateway, http


async def base(http: httpx.AsyncClient) -> str:
    found = re.search(r'src="(/console/files/[0-9a-f]{20})/app\.js"', (await http.get("/")).text)
    assert found is not None
    return found[1]


async def test_every_address_of_the_console_is_one_page(site: tuple[Gateway, httpx.AsyncClient]) -> None:
    _, http = site
    texts = set()
    for path in PAGES:
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
        assert answer.headers["content-security-policy"] == shell.POLICY
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "set-cookie" not in answer.headers
        assert "nebula-position" not in answer.headers, "nobody has signed in"
        texts.add(answer.text)
    assert len(texts) == 1
    for risky in ("unsafe", "http:", "https:", "*"):
        assert risky not in shell.POLICY
    (text,) = texts
    assert re.search(r"<script(?![^>]*src=)|\sstyle=|\son[a-z]+=|<style", text) is None, "nothing inline"


async def test_all_that_the_page_names_is_there(site: tuple[Gateway, httpx.AsyncClient]) -> None:
    _, http = site
    page = (await http.get("/")).text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(named) == 3
    for path in named:
        answer = await http.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == TYPES[Path(path).suffix]
        assert answer.headers["content-security-policy"] == shell.OF_FILES
        assert "set-cookie" not in answer.headers


async def test_a_file_is_compressed_once_and_asked_for_once(site: tuple[Gateway, httpx.AsyncClient]) -> None:
    _, http = site
    path = f"{await base(http)}/pages/index.js"
    assert (await http.get(path)).status_code == 404, "it is in app.js"
    path = f"{await base(http)}/icons.svg"
    raw = (WEB / "icons.svg").read_bytes()
    plain = await http.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.content == raw
    assert "content-encoding" not in plain.headers
    async with http.stream("GET", path, headers={"Accept-Encoding": "br, gzip"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join([part async for part in packed.aiter_raw()])) == raw
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    again = await http.get(path, headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("br;q=1, gzip;q=0.5", True),
        ("gzip; q=0", False),
        ("gzip;q=0.0", False),
        ("", False),
        ("br", False),
    ],
)
def test_who_can_read_gzip(header: str, wanted: bool) -> None:
    assert accepts_gzip(header) is wanted


async def test_nothing_else_is_served(site: tuple[Gateway, httpx.AsyncClient]) -> None:
    _, http = site
    at = await base(http)
    for path in (
        f"{at}/index.html",
        f"{at}/core/types.d.ts",
        f"{at}/no-such.js",
        f"{at}/vendor/secret.js",
        f"{at}/vendor/lit-html/package.json",
        f"{at}/vendor/lit-html/../secret.js",
        f"{at}/vendor/lit-html/%2e%2e/secret.js",
        f"{at}/../routes.py",
        f"{at}/%2e%2e/%2e%2e/routes.py",
        f"{at}//app.js",
        f"{at}/core",
        f"{at}/",
        "/console/files",
        "/console/files/",
        "/console/files/00000000000000000000/app.js",
        "/console/files/..%2f..%2fetc/passwd",
    ):
        request = http.build_request("GET", path)
        answer = await http.send(request)
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_route"), path
    assert (await http.get(f"{at}/vendor/uplot/dist/uPlot.esm.js")).status_code == 200
    worker = {"Service-Worker": "script", "Sec-Fetch-Dest": "serviceworker"}
    assert (await http.get(f"{at}/core/live-worker.js")).status_code == 200
    for path in ("/", "/console/", f"{at}/core/live-worker.js"):
        assert (await http.get(path, headers=worker)).status_code == 404, "there is no service worker"
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = await http.request(method, "/console/")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_a_page_needs_no_token_and_a_wrong_one_is_not_looked_at(site: tuple[Gateway, httpx.AsyncClient]) -> None:
    gateway, http = site
    for headers in (
        {"Authorization": "Bearer wrong"},
        {"Cookie": "nebula-session=wrong"},
        {"Authorization": "Bearer a"},
    ):
        answer = await http.get("/", headers=headers)
        assert answer.status_code == 200
        assert "nebula-position" not in answer.headers
    refused = await http.get("/console/", headers={"Host": "evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (421, "foreign_host")
    refused = await http.get("/console/", headers={"Origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
    assert 'route="GET /console",status="200"' in gateway.metrics.text().decode()
    paths = (await http.get("/v1/openapi.json")).json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/console")]


async def test_without_npm_the_page_says_what_is_missing(api: Platform, tmp_path: Path) -> None:
    async with (
        served(api.side, api.dsn, console_files=tmp_path / "none") as (_, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        answer = await http.get("/")
        assert answer.status_code == 503
        assert "make setup" in answer.text
        assert "lit-html" in answer.text
        assert answer.headers["content-security-policy"] == shell.POLICY
        assert (await http.get("/healthz")).status_code == 200


async def test_the_page_is_there_while_postgres_is_not(api: Platform, tmp_path: Path) -> None:
    away = "postgresql://nebula@127.0.0.1:9/nebula"
    async with (
        served(api.side, away, console_files=packages(tmp_path)) as (_, url),
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        assert (await http.get("/console/")).status_code == 200


async def test_an_error_of_the_file_system_is_a_missing_file(tmp_path: Path) -> None:
    console = Console(packages(tmp_path))
    (tmp_path / "uplot" / "dist" / "uPlot.esm.js").unlink()
    vendored = vendor.installed(tmp_path)
    assert vendored.read("uplot/dist/uPlot.esm.js") is None
    assert vendored.missing() == ["uplot"]
    assert console.serves("/") and console.serves("/console/x")
    for other in ("/v1/me", "/consoles", "/healthz", "//", "/console.js"):
        assert not console.serves(other)
    with pytest.raises(Problem, match="method_not_allowed"):
        await console({"type": "http", "method": "POST", "path": "/", "headers": []}, None, None)  # type: ignore[arg-type]


def test_the_files_are_small() -> None:
    files = [path for path in WEB.rglob("*") if path.suffix in TYPES]
    assert len(read()) == len(files)
    raw = sum(path.stat().st_size for path in files)
    packed = sum(len(gzip.compress(path.read_bytes())) for path in files)
    # A browser reads only those of the pages that are opened.
    assert raw <= 500 * 1024
    assert packed <= 200 * 1024
