"""Runs in a network namespace: sends raw frames, and records all that its interface receives.

Reads one JSON object a line from stdin: {"send": hex} or {"received": true}, and answers each with one line.
"""

import json
import socket
import sys
import threading
from collections import deque

#: Packets that this host itself has sent.
OUTGOING = 4
EVERYTHING = 0x0003


def record(link: socket.socket, received: "deque[str]") -> None:
    while True:
        frame, (_, _, kind, *_) = link.recvfrom(65536)
        if kind != OUTGOING:
            received.append(frame.hex())


def main(device: str) -> None:
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERYTHING))
    link.bind((device, EVERYTHING))
    received: deque[str] = deque(maxlen=20_000)
    threading.Thread(target=record, args=(link, received), daemon=True).start()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "send" in command:
            link.send(bytes.fromhex(command["send"]))
        print(json.dumps(list(received) if "received" in command else "done"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
