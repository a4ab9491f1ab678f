"""A slow network between two network namespaces, as long as this program runs.

``python benchmarks/link.py RATE DELAY A B`` makes the interface eth0 in both, with the
addresses 10.77.0.1 and 10.77.0.2. It carries RATE bits a second from one to the other,
and delays each packet by DELAY seconds. Then it goes on in the background, and prints
its process number. ``benchmarks/narrow.sh`` uses it.

The interfaces are those of TUN, which hand their packets to this process. Packets of up
to 64 KB keep the time that it takes of the processor small: some 15 % of a core at 1
Gbit/s.
"""

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF, IFF_TUN, IFF_NO_PI, PR_SET_TIMERSLACK = 0x400454CA, 0x1, 0x1000, 29
LIBC = ctypes.CDLL(None, use_errno=True)


def open_interface(namespace: str, address: str) -> int:
    """Make eth0 in a namespace, where this process stays; return its descriptor."""
    with open(f"/var/run/netns/{namespace}") as file:
        if LIBC.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), namespace)
    interface = os.open("/dev/net/tun", os.O_RDWR)
    request = struct.pack("16sH22x", b"eth0", IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(interface, TUNSETIFF, request)
    for command in (f"addr add {address}/24 dev eth0", "link set eth0 mtu 65000 up"):
        subprocess.run(["ip", *command.split()], check=True)
    return interface


def carry(ends: list[int], rate: float, delay: float) -> None:
    """Take each packet to the other end when its time has come."""
    # By the end that they go to: packets, each with the time of its arrival.
    waiting: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}
    free = dict.fromkeys(ends, 0.0)  # when the last packet to there will be sent
    while True:
        due = [packets[0][0] for packets in waiting.values() if packets]
        rest = max(0.0, min(due) - time.monotonic()) if due else None
        for end in select.select(ends, [], [], rest)[0]:
            packet, other = os.read(end, 2**16), ends[end == ends[0]]
            free[other] = max(free[other], time.monotonic()) + 8 * len(packet) / rate
            waiting[other].append((free[other] + delay, packet))
        for end, packets in waiting.items():
            while packets and packets[0][0] <= time.monotonic():
                os.write(end, packets.popleft()[1])


def main() -> None:
    """Set the network up, and go on in the background."""
    rate, delay, *namespaces = sys.argv[1:]
    ends = [open_interface(n, f"10.77.0.{i}") for i, n in enumerate(namespaces, 1)]
    if number := os.fork():
        print(number)
        return
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.nice(-20)
    LIBC.prctl(PR_SET_TIMERSLACK, 1)
    carry(ends, float(rate), float(delay))


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"a slow network cannot be made here: {error}")
