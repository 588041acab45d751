"""A program that follows a project's feed, whoever dies meanwhile, and resumes where it was."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx


@dataclass
class Reader:
    """`seen` are the positions in the order of their coming; `broken` the items that do not follow the one before."""

    client: Callable[[], httpx.AsyncClient]
    project: str
    seen: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    resumed: int = 0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read()
            except (httpx.HTTPError, OSError):
                await asyncio.sleep(0.2)
            self.resumed += 1

    async def _read(self) -> None:
        headers = {"Last-Event-ID": str(self.seen[-1])} if self.seen else {}
        async with (
            self.client() as http,
            http.stream("GET", f"/v1/projects/{self.project}/feed", headers=headers) as answer,
        ):
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    self._take(json.loads(line.removeprefix("data:")))

    def _take(self, item: dict[str, object]) -> None:
        position, previous = int(str(item["position"])), item["prev"]
        if self.seen and previous != self.seen[-1]:
            self.broken.append(f"{position} came behind {self.seen[-1]} and says that it follows {previous}")
        self.seen.append(position)
