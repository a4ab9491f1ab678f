"""A wire with a delay between two network namespaces, where the kernel has no netem.

``python benchmarks/wire.py A B SECONDS`` makes an interface ``eth0`` in each of them,
and carries packets from one to the other, each so many seconds later, until it is
ended. ``benchmarks/narrow.sh`` uses it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress

SET_INTERFACE, OF_PACKETS, WITHOUT_HEADER = 0x400454CA, 0x0001, 0x1000  # Linux's


def end_in(namespace: str) -> int:
    """Make an interface in a namespace, where this process stays."""
    with open(f"/var/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), namespace)
    end = os.open("/dev/net/tun", os.O_RDWR)
    asked = struct.pack("16sH22x", b"eth0", OF_PACKETS | WITHOUT_HEADER)
    fcntl.ioctl(end, SET_INTERFACE, asked)
    return end


def main() -> None:
    """Carry packets until the process is ended."""
    one, other = map(end_in, sys.argv[1:3])
    delay, across = float(sys.argv[3]), {one: other, other: one}
    under_way: deque[tuple[float, int, bytes]] = deque()
    while True:
        rest = under_way[0][0] - time.monotonic() if under_way else None
        ready, _, _ = select.select(across, [], [], rest and max(0, rest))
        for end in ready:
            packet = os.read(end, 2**16)
            under_way.append((time.monotonic() + delay, across[end], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, packet = under_way.popleft()
            with suppress(OSError):  # an interface that is not up
                os.write(end, packet)


if __name__ == "__main__":
    main()
