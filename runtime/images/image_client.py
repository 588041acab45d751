"""The HTTP client for images. It connects only to addresses that are allowed.

A name is resolved once per connection. Each address is checked, and the connection is made to one of the allowed ones.
So a different answer of the name server a moment later has no effect. Host and SNI are those of the URL. The same holds
for each redirect. Proxies and credentials of the environment are not used.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore
import httpx

from runtime.images.image_hosts import Address, Denied, ImageHosts, literal
from runtime.trust import trusted

MOST_REDIRECTS = 5

Resolve = Callable[[str, int], Awaitable[list[Address]]]


async def resolved(host: str, port: int) -> list[Address]:
    """The addresses of a host. Raises OSError, and UnicodeError for an invalid name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [literal(str(info[4][0])) for info in found]
    return list(dict.fromkeys(address for address in addresses if address is not None))


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Makes connections to allowed addresses only."""

    def __init__(self, hosts: ImageHosts, resolve: Resolve = resolved) -> None:
        self._hosts = hosts
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    async def addresses(self, host: str, port: int, seconds: float | None) -> list[Address]:
        """The allowed addresses of a host. Raises Denied if there is none, and httpcore's errors."""
        known = literal(host)
        try:
            async with asyncio.timeout(seconds):
                found = [known] if known is not None else await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the name is not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        refusal: Denied | None = None
        allowed = []
        for address in found:
            try:
                self._hosts.check(host, address, port)
                allowed.append(address)
            except Denied as denied:
                refusal = denied
        if not allowed:
            raise refusal or httpcore.ConnectError("the name has no address")
        return allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self.addresses(host, port, timeout):
            try:
                return await self._backend.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("the name has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectError("no image is fetched from a socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Transport(httpx.AsyncHTTPTransport):
    """httpx's transport on a given network backend."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        context = trusted()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend)


def client(hosts: ImageHosts, timeout: httpx.Timeout) -> httpx.AsyncClient:
    """A client for images. All its calls may raise Denied. Only `send` follows redirects."""
    return httpx.AsyncClient(transport=Transport(CheckedBackend(hosts)), timeout=timeout, trust_env=False)


async def send(asking: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Send a request, and follow redirects. The body of the answer is not read; the caller has to close it.

    Bodies of redirects are not read, since they may be endless (httpx would read them). Raises httpx.HTTPError,
    InvalidURL, Denied.
    """
    for _ in range(MOST_REDIRECTS + 1):
        answer = await asking.send(request, stream=True)
        if answer.next_request is None:
            return answer
        request = answer.next_request
        await answer.aclose()
    raise httpx.TooManyRedirects(f"more than {MOST_REDIRECTS} redirects", request=request)
