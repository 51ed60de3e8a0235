"""SYNs with the 4-tuples of live connections, any sequence numbers and timestamps, as fast as one socket sends them.

    python -m tests.system.spoof INTERFACE SERVER_MAC SECONDS PORT CLIENT_PORT...

Prints how many were sent.
"""

import random
import socket
import struct
import sys
import time

from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS

ETHERTYPE_IP = 0x0800
SYN = 0x02
VARIANTS = 4  # for each connection


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def frame(
    server_mac: bytes,
    client_mac: bytes,
    client_port: int,
    port: int,
    draw: random.Random,
    address: str = CLIENT_ADDRESS,
) -> bytes:
    source, target = socket.inet_aton(address), socket.inet_aton(SERVER_ADDRESS)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 52, 0, 0x4000, 64, socket.IPPROTO_TCP, 0, source, target)
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    tcp = struct.pack("!HHIIBBHHH", client_port, port, draw.getrandbits(32), 0, 8 << 4, SYN, 0xFFFF, 0, 0)
    tcp += struct.pack(
        "!BBBBII", 1, 1, 8, 10, draw.getrandbits(32), 0
    )  # else RFC 7323 has them dropped unseen
    pseudo = source + target + struct.pack("!HH", socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", _checksum(pseudo + tcp)) + tcp[18:]
    return server_mac + client_mac + struct.pack("!H", ETHERTYPE_IP) + ip + tcp


def main(interface: str, mac: str, seconds: str, port: str, *client_ports: str) -> None:
    """Send until the time is over."""
    draw, sent = random.Random(5), 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        here = raw.getsockname()[4]
        frames = [
            frame(bytes.fromhex(mac.replace(":", "")), here, int(own), int(port), draw)
            for own in client_ports
            for _ in range(VARIANTS)
        ]
        draw.shuffle(frames)
        end_s = time.monotonic() + float(seconds)
        while time.monotonic() < end_s:
            for each in frames:
                try:
                    raw.send(each)
                except OSError:  # the queue is full
                    continue
                sent += 1
    print(sent)


if __name__ == "__main__":
    main(*sys.argv[1:])
