"""What we use of libraries without their promise to keep it. Where one is gone, a version bound was too wide."""

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.js import JetStreamContext
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import Server

#: Methods that are overridden or called, with the names of their parameters.
METHODS: list[tuple[type[Any], str, list[str]]] = [
    (Client, "_send_publish", ["subject", "reply", "payload", "payload_size", "headers"]),
    (Client, "_send_command", ["cmd", "priority"]),
    (Client, "_flush_pending", ["force_flush"]),
    (Client, "_send_ping", ["future"]),
    (Client, "_process_headers", ["headers"]),
    (Client, "_build_message", ["sid", "subject", "reply", "data", "headers"]),
    (Client, "_attempt_reconnect", []),
    (Client, "_process_err", ["err_msg"]),
    (Client, "_process_info", ["info", "initial_connection"]),
    (Client, "_process_connect_init", []),
    (Client, "_connect_to_server", ["s"]),
    (TcpTransport, "write", ["payload"]),
    (TcpTransport, "writelines", ["payload"]),
    (TcpTransport, "read", ["buffer_size"]),
    (Client, "_init_request_sub", []),
    (Client, "_request_new_style", ["subject", "payload", "timeout", "headers"]),
    (Client, "force_reconnect", []),
    (Client, "_request_sub_callback", ["msg"]),
    (Client, "_process_msg", ["sid", "subject", "reply", "data", "headers"]),
    (Msg, "__init__", ["_client", "subject", "reply", "data", "headers", "_metadata", "_ackd", "_sid"]),
    (NatsBroker, "_connect", []),
    (NatsBroker, "stop", ["exc_type", "exc_val", "exc_tb"]),
    (Server, "capture_signals", []),
    (WebSocketsSansIOProtocol, "handle_ping", []),
    (WebSocketsSansIOProtocol, "handle_cont", ["event"]),
    (WebSocketsSansIOProtocol, "send", ["message"]),
]
#: Members that every client of nats-py has.
OF_A_CLIENT = [
    "_pending",
    "_pending_data_size",
    "_transport",
    "_flush_queue",
    "_err",
    "_pings_outstanding",
    "_server_info",
    "_server_pool",
    "_subs",
    "_resp_map",
    "_resp_sub_prefix",
]
#: What our code reads or calls of objects that are not its own: each stands above, or has a test of its own here.
KNOWN = {
    "_send_ping",
    "_send_publish",
    "_send_command",
    "_flush_pending",
    "_attempt_reconnect",
    "_process_err",
    "_process_info",
    "_process_connect_init",
    "_connect_to_server",
    "_init_request_sub",
    "_process_msg",
    "_subs",
    "_resp_map",
    "_server_info",
    "_nc",
    "_nms",
    "_deliver",
    "_sub",
}
ROOMS = ("domain", "eventstore", "handlers", "projections", "gateway", "node_daemon", "runtime", "cli", "bench")
#: Those that Python documents.
PUBLIC = {"_asdict", "_replace", "_exit", "_current_frames"}


@pytest.mark.parametrize(("owner", "name", "parameters"), METHODS, ids=str)
def test_a_method_is_there_and_takes_what_it_took(owner: type[Any], name: str, parameters: list[str]) -> None:
    found = [each for each in inspect.signature(getattr(owner, name)).parameters if each != "self"]
    assert found == parameters


def test_a_client_has_what_we_look_at() -> None:
    client = Client()
    assert [name for name in OF_A_CLIENT if not hasattr(client, name)] == []
    assert JetStreamContext(client)._nc is client


def test_a_pull_subscription_has_what_we_ask_with() -> None:
    client = Client()
    subscription = Subscription(client)
    pulls = JetStreamContext.PullSubscription(JetStreamContext(client), subscription, "S", "c", b"_INBOX.1")
    assert (pulls._nc, pulls._sub, pulls._deliver) == (client, subscription, "_INBOX.1")
    assert pulls._nms == "$JS.API.CONSUMER.MSG.NEXT.S.c"


def test_a_websocket_has_what_we_look_at() -> None:
    made = WebSocketsSansIOProtocol.__init__.__code__.co_names
    wanted = {"conn", "frames", "handshake_complete", "handshake_initiated", "transport", "writable"}
    assert wanted - set(made) == set()


def test_no_other_private_member_of_somebody_else_is_used() -> None:
    """`self._x` is our own, or an override of a method above."""
    root = Path(__file__).parent.parent
    used: set[str] = set()
    for file in [each for room in ROOMS for each in (root / room).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                used.add(node.attr)
    assert used - PUBLIC == KNOWN
