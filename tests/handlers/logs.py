"""Logs without a server: the recorded histories side by side, with messages between them that are no events."""

import json
import random
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from domain.kinds import KINDS
from eventstore.log.envelope import Context, Recorded, Ref, seal
from eventstore.log.judge import Tip
from handlers.world.world import World
from tests.history.test_history import STORIES, decoded, lines

START = datetime(2026, 1, 1, tzinfo=UTC)
VM = "00000000-0000-4000-8000-000000000001"


def made(seed: int, *, vms: int = 12) -> list[Recorded]:
    """A log of histories in a random order, each of its own aggregate. Some messages are no events."""
    chance = random.Random(seed)
    by_kind = {kind: list(paths) for kind, paths in groupby(STORIES, key=lambda path: path.name.split("-")[0])}
    chosen = [chance.choice(paths) for kind, paths in by_kind.items() if kind in KINDS and kind != "vm"]
    chosen += chance.choices(by_kind["vm"], k=vms)
    lives = [Life(path, number) for number, path in enumerate(chosen)]
    log: list[Recorded] = []
    while lives:
        life = chance.choice(lives)
        if chance.random() < 0.05:
            log.append(life.malformed(len(log) + 1))
            continue
        log.append(life.next(len(log) + 1))
        if not life.events:
            lives.remove(life)
            if life.ref.kind == "vm":
                log.append(life.malformed(len(log) + 1))
    return log


class Life:
    """A history that goes on. Ids of VMs are replaced, since they are the same in all histories."""

    def __init__(self, path: Path, number: int) -> None:
        id_ = f"{number:08x}-0000-4000-8000-000000000001"
        self.events = [decoded(headers, body.replace(VM.encode(), id_.encode())) for headers, body in lines(path)]
        kind = path.name.split("-")[0]
        first = json.loads(lines(path)[0][1].replace(VM.encode(), id_.encode()))
        name = first["info"]["node"] if kind == "node" else first[kind]
        self.ref = Ref(KINDS[kind].project_of(first.get("project") or "p", name), kind, name)
        self.tip = Tip(self.ref)

    def next(self, position: int) -> Recorded:
        headers, body = seal(self.ref, self.tip.version + 1, self.tip.digest, self.events.pop(0), Context("tester"))
        found = stored(position, self.ref, headers, body)
        self.tip = self.tip.after(found)
        return found

    def malformed(self, position: int) -> Recorded:
        """A message that does not follow the last event."""
        headers = {"ce-id": "x", "ce-prevhash": "0" * 64, "ce-aggregateversion": "7"}
        return stored(position, self.ref, headers, b"{}")


def stored(position: int, ref: Ref, headers: dict[str, str], body: bytes) -> Recorded:
    return Recorded(position, ref.subject, headers, body, START + timedelta(seconds=position))


def read(world: World, log: list[Recorded]) -> World:
    """The world after the next messages of a log."""
    for recorded in log:
        world.frontier.add_read([recorded])
        world.frontier.hand_on([recorded])
        world.take(recorded)
        world.newest, world.position = recorded, recorded.position
    return world
