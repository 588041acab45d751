"""Prints the health of the platform that `nebula up` runs: which part fails, and when it works again."""

import asyncio
import ssl

import httpx

from cli.local.progress import say

#: Seconds between two checks of the platform's health, and for an answer.
HEALTH_SECONDS, HEALTH_PATIENCE = 2.0, 10.0


async def print_health(url: str, token: str | None = None, trust: ssl.SSLContext | None = None) -> None:
    """Print when a part of the platform fails, with the reason, and when it works again. Never returns.

    Also prints when more messages are parked. Without the `token` of an operator or auditor, no part is named.
    """
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    failing, parked = "", 0
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=HEALTH_PATIENCE, trust_env=False, verify=trust or True
    ) as http:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            try:
                body = (await http.get("/healthz")).json()
                parts = {name: part for name, part in body.items() if isinstance(part, dict) and "since" in part}
                now = "; ".join(f"{name}: {part.get('detail', part['status'])}" for name, part in parts.items())
                if not now and body["status"] == "unavailable":
                    now = "the platform: see the logs of its roles"
                count = int(body.get("parked", 0)) + int(body.get("parked_more", 0))
            except (httpx.HTTPError, ValueError, AttributeError, LookupError):
                now, count = "gateway: it does not answer", parked
            if bool(now) != bool(failing):
                say(f"unhealthy    {now}" if now else "healthy      again")
            if count > parked:
                say(f"degraded     {count} open parked messages; see nebula parked list")
            failing, parked = now, count
