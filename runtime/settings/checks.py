"""What a text must be as the value of a setting. A check returns the text, or raises ValueError."""

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

from runtime.images.image_hosts import ImageHosts

ENCODED = "in a user or a password, percent-encode all characters except letters and digits"


def directory_url(url: str) -> str:
    if not re.fullmatch(r"http://[^\s;%,@]+/", url):
        raise ValueError("must be an http:// URL that ends in / and has no user, space, ';', '%' or ','")
    return url


def folders(paths: str) -> str:
    wrong = [path for path in paths.split(":") if not path.startswith("/") or Path(path) == Path("/")]
    if wrong:
        raise ValueError("must be absolute paths of folders other than /, separated by ':'")
    return paths


def address(name: str) -> str:
    try:
        name.encode("idna")
    except UnicodeError:
        raise ValueError("must be an address of this host, or a name of it") from None
    return name


def host_names(names: str) -> str:
    for name in filter(None, (each.strip() for each in names.split(","))):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", name):
            raise ValueError("must be host names without ports, separated by commas")
    return names


def origins(origins: str) -> str:
    for origin in filter(None, (each.strip() for each in origins.split(","))):
        if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+", origin):
            raise ValueError("must be origins like https://console.example, separated by commas")
    return origins


def image_hosts(setting: str) -> str:
    ImageHosts.of(setting)
    return setting


def networks(setting: str) -> str:
    for each in filter(None, setting.split(",")):
        try:
            ipaddress.ip_network(each.strip())
        except ValueError:
            raise ValueError("must be addresses or networks such as 10.0.0.0/8, separated by commas") from None
    return setting


def nats_servers(urls: str) -> str:
    """Check the URLs strictly: a part of a password that was parsed as a host or a port would appear in errors."""
    for url in urls.split(","):
        try:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            wrong = parts.scheme not in ("nats", "tls") or not parts.hostname or parts.port == 0
            wrong = wrong or parts.path not in ("", "/") or bool(parts.query or parts.fragment)
        except ValueError:
            wrong = True
        if wrong:
            raise ValueError(f"must be URLs like nats://HOST:4222, separated by commas; {ENCODED}")
    return urls


def dsn(dsn: str) -> str:
    """Check the DSN here, because libraries quote a wrong DSN, with its password, in their errors."""
    from psycopg import Error
    from psycopg.conninfo import conninfo_to_dict

    try:
        ports = str(conninfo_to_dict(dsn).get("port") or "").split(",")
        wrong = not all(port == "" or (port.isascii() and port.isdecimal() and int(port) < 65536) for port in ports)
    except Error:
        wrong = True
    if wrong:
        raise ValueError(f"must be like postgresql://USER:PASSWORD@HOST:5432/DATABASE; {ENCODED}") from None
    return dsn
