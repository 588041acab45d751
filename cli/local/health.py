"""The health of a platform that runs here, in words: what fails, and when it works again."""

import asyncio

import httpx

from cli.local.progress import say

#: Seconds between two looks at the health of the platform, and for an answer.
HEALTH_SECONDS, HEALTH_PATIENCE = 2.0, 10.0


async def tell_health(url: str) -> None:
    """Print when a part of the platform fails, and why, and when it works again. Never returns.

    Prints it too when more messages are parked.
    """
    unwell, parked = "", 0
    async with httpx.AsyncClient(base_url=url, timeout=HEALTH_PATIENCE, trust_env=False) as http:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            try:
                body = (await http.get("/healthz")).json()
                parts = {name: part for name, part in body.items() if isinstance(part, dict) and "since" in part}
                now = "; ".join(f"{name}: {part.get('detail', part['status'])}" for name, part in parts.items())
                aside = int(body.get("parked", 0)) + int(body.get("parked_more", 0))
            except (httpx.HTTPError, ValueError, AttributeError, LookupError):
                now, aside = "gateway: it does not answer", parked
            if bool(now) != bool(unwell):
                say(f"unhealthy    {now}" if now else "healthy      again")
            if aside > parked:
                say(f"degraded     {aside} parked messages that nobody has seen; see nebula parked list")
            unwell, parked = now, aside
