"""Messages that anybody who reaches the bus can store in the log, and that are no events."""

import json
from dataclasses import dataclass

from domain.base import Event
from domain.project import ProjectCreated
from domain.tag import TagCreated
from eventstore.log.envelope import Context, Ref, seal
from eventstore.log.judge import Tip
from runtime.bus.quick_client import QuickClient
from runtime.bus.streams import events_stream

CONTEXT = Context(actor="mallory")
LARGEST = events_stream(1).max_msg_size or 0


@dataclass(frozen=True)
class Stray:
    """Bytes to publish: a header block (or none) and a body."""

    block: bytes | None
    body: bytes


def block(headers: dict[str, str]) -> bytes:
    return b"NATS/1.0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n"


def strays(ref: Ref, tip: Tip, event: Event) -> dict[str, Stray]:
    """What is no event behind a tip, by what is wrong with it. `event` would be one."""
    headers, body = seal(ref, tip.version + 1, tip.digest, event, CONTEXT)

    def changed(**said: str) -> dict[str, str]:
        return {**headers, **{name.replace("_", "-"): value for name, value in said.items()}}

    foreign = TagCreated.TOPIC if ref.kind != "tag" else ProjectCreated.TOPIC
    good = block(headers)
    return {
        "no headers": Stray(None, b"hi"),
        "nothing at all": Stray(None, b""),
        "no type": Stray(block({k: v for k, v in headers.items() if k != "ce-type"}), body),
        "version 9": Stray(block(changed(ce_aggregateversion="9", ce_id=f"{ref.kind}.{ref.id}:9")), body),
        "version 0": Stray(block(changed(ce_aggregateversion="0", ce_id=f"{ref.kind}.{ref.id}:0")), body),
        "version of 5000 digits": Stray(block(changed(ce_aggregateversion="9" * 5000)), body),
        "version in other digits": Stray(block(changed(ce_aggregateversion="\u0661")), body),
        "another chain": Stray(block(changed(ce_prevhash="e" * 64)), body),
        "no hash": Stray(block(changed(ce_prevhash="nonsense")), body),
        "another source": Stray(block(changed(ce_source="/projects/x/vms/y")), body),
        "no time": Stray(block(changed(ce_time="yesterday")), body),
        "year 1": Stray(block(changed(ce_time="0001-01-01T00:00:00+14:00")), body),
        "no zone": Stray(block(changed(ce_time="2026-01-01T00:00:00")), body),
        "a type's version that is none": Stray(block(changed(ce_typeversion="x")), body),
        "no body": Stray(good, b""),
        "no JSON": Stray(good, b"{"),
        "deep JSON": Stray(good, b"[" * 5000 + b"]" * 5000),
        "no UTF-8": Stray(good, b'{"name": "\xff"}'),
        "another body": Stray(good, b'{"at": 1}'),
        "a time beyond all": Stray(good, body.replace(b'"at":"2', b'"at":"0001-01-01T00:00:00+14:00","x":"2')),
        "another kind's type": Stray(block(changed(ce_type=foreign)), body),
        "bytes in a header": Stray(good[:-2] + b"ce-actor: \xff\xfe\r\n\r\n", body),
        "a header twice": Stray(good[:-2] + b"ce-type: nebula.vm.VmDeleted\r\n\r\n", body),
        "a status": Stray(b"NATS/1.0 503 \xff\xff\r\nStatus: 404\r\nNats-Sequence: 1\r\n\r\n", body),
        "a status as a header": Stray(b"NATS/1.0\r\nStatus: 100\r\nNats-Last-Consumer: x\r\n\r\n", b""),
        "junk": Stray(b"NATS/1.0\r\n\x01\x02: \x00\x7f\r\nno colon\r\n\r\n", b"\x00"),
        "a stamp that is no time": Stray(b"NATS/1.0\r\nNebula-Stored-At: x\r\n\r\n", b""),
        "a server's header behind a space": Stray(
            b"NATS/1.0\r\n Nats-Rollup: all\r\n\tNebula-Stored-At: x\r\n\r\n", b""
        ),
        "a version and a body, and nothing else": Stray(block({"ce-aggregateversion": "1"}), b"{}"),
        "members of the JSON format as headers": Stray(
            block({"ce-data": "x", "ce-data_base64": "x", "ce-position": "x", "ce-": "x", "ce-aggregateversion": "-7"}),
            b"{}",
        ),
        "as large as can be": Stray(block({"a": "b"}), b"x" * (LARGEST - len(block({"a": "b"})))),
        "a zone that Postgres does not know": Stray(
            block(changed(ce_time="2026-01-01T00:00:00+23:59:59.999999", ce_prevhash="e" * 64)), body
        ),
        "a stamp with such a zone": Stray(
            b"NATS/1.0\r\nNebula-Stored-At: 2026-01-01T00:00:00-23:59:59.5\r\n\r\n", b"{}"
        ),
        "a huge type": Stray(block(changed(ce_type="x" * 20_000, ce_actor="y" * 20_000)), body),
    }


async def lay(nc: QuickClient, subject: bytes, stray: Stray) -> int:
    """Store it, as any client can; its position."""
    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    command = b"PUB %b %b %d\r\n" % (subject, inbox.encode(), len(stray.body))
    if stray.block is not None:
        size = len(stray.block)
        command = b"HPUB %b %b %d %d\r\n" % (subject, inbox.encode(), size, size + len(stray.body)) + stray.block
    await nc._send_command(command + stray.body + b"\r\n")
    await nc._flush_pending()
    stored = json.loads((await answers.next_msg(timeout=30)).data)
    await answers.unsubscribe()
    return int(stored["seq"])
