"""Frames, byte by byte: what a guest's kernel would not send."""

import ipaddress
import struct

BROADCAST = "ff:ff:ff:ff:ff:ff"
IPV4, ARP, IPV6, RARP, VLAN, QINQ = 0x0800, 0x0806, 0x86DD, 0x8035, 0x8100, 0x88A8
UDP, ICMPV6 = 17, 58
DISCOVER, OFFER, REQUEST, ACK, RELEASE = 1, 2, 3, 5, 7


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def ethernet(source: str, target: str, kind: int, payload: bytes, *tags: tuple[int, int]) -> bytes:
    """`tags`: ethertype and id of each VLAN tag."""
    tagged = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return mac(target) + mac(source) + tagged + struct.pack("!H", kind) + payload


def arp(operation: int, source: tuple[str, str], target: tuple[str, str] = ("00:00:00:00:00:00", "0.0.0.0")) -> bytes:
    """`source`, `target`: hardware and IP address. Operation 1 is a request, 2 a reply."""
    said = mac(source[0]) + ip(source[1]) + mac(target[0]) + ip(target[1])
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + said


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) if len(data) % 2 == 0 else checksum(data + b"\0") ^ 0xFFFF
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + ip(source) + ip(target)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(source: int, target: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def ipv6(source: str, target: str, protocol: int, payload: bytes, extension: bytes = b"") -> bytes:
    """`extension`: extension headers, the first of which is of type hop-by-hop."""
    following = 0 if extension else protocol
    head = struct.pack("!IHBB", 6 << 28, len(extension) + len(payload), following, 255) + ip(source) + ip(target)
    return head + extension + payload


def icmpv6(kind: int, body: bytes, source: str, target: str) -> bytes:
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = ip(source) + ip(target) + struct.pack("!IHBB", len(message), 0, 0, ICMPV6)
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def dhcp(
    kind: int,
    client: str,
    number: int,
    *,
    requested: str | None = None,
    server: str | None = None,
    own: str = "0.0.0.0",
    given: str = "0.0.0.0",
    name: bytes = b"",
    hardware: tuple[int, int] = (1, 6),
) -> bytes:
    """A DHCP message that asks for answers by broadcast. `given`: the address that a server gives. `name`: the client
    identifier. `hardware`: type and length of the client's hardware address.
    """
    head = struct.pack("!BBBBIHH", 2 if kind in (OFFER, ACK) else 1, *hardware, 0, number, 0, 0x8000)
    fixed = head + ip(own) + ip(given) + ip("0.0.0.0") * 2 + mac(client).ljust(16, b"\0") + bytes(192)
    options = bytes([53, 1, kind])
    if requested is not None:
        options += bytes([50, 4]) + ip(requested)
    if server is not None:
        options += bytes([54, 4]) + ip(server)
    if name:
        options += bytes([61, len(name)]) + name
    if kind in (OFFER, ACK):
        options += bytes([51, 4]) + struct.pack("!I", 3600)
    return fixed + b"\x63\x82\x53\x63" + options + b"\xff"


def dhcp_answer(frame: bytes, number: int) -> tuple[int, str] | None:
    """The kind and the given address of a DHCP answer to the message of this number; None for other frames."""
    body = frame[14 + 20 + 8 :]
    if frame[12:14] != struct.pack("!H", IPV4) or frame[34:38] != struct.pack("!HH", 67, 68) or len(body) < 243:
        return None
    if body[4:8] != struct.pack("!I", number):
        return None
    return body[242], str(ipaddress.IPv4Address(body[16:20]))
