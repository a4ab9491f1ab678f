"""A delay between network namespaces, where the kernel has no netem.

``python benchmarks/delay.py SECONDS NAMESPACE ...`` has each packet that comes in at an
interface ``eth0`` of one of them wait so many seconds, until it is ended. When all is
set up it goes on in the background, and prints its process number.
``benchmarks/narrow.sh`` uses it.

The packets stay in the kernel, which asks what shall become of each (NFQUEUE). What
answers is compiled, as what it takes of the processor is taken from those who are
measured.
"""

import ctypes
import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from ctypes import c_int, c_size_t

import numba
import numpy as np

# Of Linux: linux/netfilter/nfnetlink_queue.h, linux/netfilter_ipv4/ip_tables.h
NETFILTER, PACKET, VERDICT, CONFIG = 12, 0x300, 0x301, 0x302
REQUEST, ACKNOWLEDGE = 1, 4
COMMAND, PARAMETERS, LENGTH, MASK, FLAGS = 1, 2, 3, 4, 5  # of a CONFIG
WHOLE = 4  # of the FLAGS: a packet is not cut up to be told of
TABLE, BEFORE_ROUTING, OUT = 64, 0, 3
TIMER_SLACK = 29
NOW, INCOMING, CLOCK = int(socket.MSG_DONTWAIT), select.POLLIN, time.CLOCK_MONOTONIC
AT_ONCE = 2**14  # packets that may wait in a namespace
LIBC = ctypes.CDLL(None, use_errno=True)


def _function(name: str, *types: type) -> object:
    function = LIBC[name]
    function.argtypes = types
    return function


# An address is a number here.
poll = _function("ppoll", c_size_t, c_size_t, c_size_t, c_size_t)
receive = _function("recv", c_int, c_size_t, c_size_t, c_int)
send = _function("send", c_int, c_size_t, c_size_t, c_int)
read_clock = _function("clock_gettime", c_int, c_size_t)


def message(kind: int, flags: int, *attributes: tuple[int, bytes]) -> bytes:
    """Make a message for the queue of packets."""
    body = bytes(4)
    for number, value in attributes:
        body += struct.pack("=HH", 4 + len(value), number) + value
        body += bytes(-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def configure(queue: socket.socket, *attributes: tuple[int, bytes]) -> None:
    """Set a queue up."""
    queue.send(message(CONFIG, REQUEST | ACKNOWLEDGE, *attributes))
    if error := -struct.unpack_from("=i", queue.recv(2**12), 16)[0]:
        raise OSError(error, os.strerror(error))


def queue_up() -> None:
    """Have what comes in at eth0 wait in queue 0, as an iptables rule does."""

    def entry(interface: str, target: bytes) -> bytes:
        mask = b"\xff" * (len(interface) + 1) if interface else b""
        match = struct.pack("=16x16s16x16s16x4x", interface.encode(), mask)
        return struct.pack("=84s4xHH4x16x", match, 112, 112 + len(target)) + target

    wait = entry("eth0", struct.pack("=H29sBH6x", 40, b"NFQUEUE", 0, 0))
    accept = entry("", struct.pack("=H29sBi4x", 40, b"", 0, -2))
    end = entry("", struct.pack("=H29sB30s2x", 64, b"ERROR", 0, b"ERROR"))
    # Two chains, before routing and on the way out, each with what holds for the rest.
    rules, out = wait + accept + accept + end, len(wait) + len(accept)
    first, last = (0, 0, 0, out, 0), (len(wait), 0, 0, out, 0)
    counters = ctypes.create_string_buffer(16 * 3)  # of the rules until now
    chains = 1 << BEFORE_ROUTING | 1 << OUT
    head = struct.pack("=32sIII", b"raw", chains, 4, len(rules))
    head += struct.pack("=10II", *first, *last, 3)
    table = head + struct.pack("P", ctypes.addressof(counters)) + rules
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.IPPROTO_IP, TABLE, table)


def enter(namespace: str) -> socket.socket:
    """Open the queue of a namespace, where this process stays."""
    with open(f"/var/run/netns/{namespace}") as file:
        if LIBC.setns(file.fileno(), 0):
            raise OSError(ctypes.get_errno(), namespace)
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    queue.bind((0, 0))
    configure(queue, (COMMAND, struct.pack(">BBH", 1, 0, 0)))
    # Tell of each packet, without what is in it.
    numbers = ((LENGTH, AT_ONCE), (MASK, WHOLE), (FLAGS, WHOLE))
    values = ((number, struct.pack(">I", value)) for number, value in numbers)
    configure(queue, (PARAMETERS, struct.pack(">IB", 0, 1)), *values)
    queue_up()
    return queue


@numba.njit
def now(moment):  # type: ignore[no-untyped-def]
    """Read the clock: nanoseconds."""
    read_clock(CLOCK, moment.ctypes.data)
    return moment[0] * 1_000_000_000 + moment[1]


@numba.njit
def answer(queues, delay, verdict):  # type: ignore[no-untyped-def]
    """Let each packet go when its time has come."""
    # Of packets: when it goes, where, and its number there.
    waiting = np.zeros((AT_ONCE * len(queues), 3), np.int64)
    first, stop, size = 0, 0, len(waiting)
    asked = np.zeros((len(queues), 2), np.int32)  # descriptor, events
    asked[:, 0], asked[:, 1] = queues, INCOMING
    told, moment = np.zeros(2**12, np.int32), np.zeros(2, np.int64)
    while True:
        moment[0], moment[1] = 3600, 0
        if first < stop:
            rest = max(0, waiting[first % size, 0] - now(moment))
            moment[0], moment[1] = rest // 1_000_000_000, rest % 1_000_000_000
        poll(asked.ctypes.data, len(queues), moment.ctypes.data, 0)
        for queue in queues:
            while receive(queue, told.ctypes.data, told.nbytes, NOW) > 0:
                if told[1] & 0xFFFF == PACKET:
                    place = stop % size
                    waiting[place, 0] = now(moment) + delay
                    waiting[place, 1], waiting[place, 2] = queue, told[6]
                    stop += 1
        while first < stop and waiting[first % size, 0] <= now(moment):
            place = first % size
            verdict[-1] = waiting[place, 2]
            send(waiting[place, 1], verdict.ctypes.data, verdict.nbytes, 0)
            first += 1


def main() -> None:
    """Set all up, and let packets go in the background."""
    delay = int(float(sys.argv[1]) * 1e9)
    queues = [enter(namespace) for namespace in sys.argv[2:]]
    descriptors = np.array([queue.fileno() for queue in queues], np.int32)
    accept = message(VERDICT, REQUEST, (2, struct.pack(">II", 1, 0)))
    verdict = np.frombuffer(accept, np.int32).copy()
    answer.compile((numba.typeof(descriptors), numba.int64, numba.typeof(verdict)))
    if number := os.fork():
        print(number)
        return
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    LIBC.prctl(TIMER_SLACK, 1)
    with suppress(KeyboardInterrupt):
        answer(descriptors, delay, verdict)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"the kernel cannot hold packets back: {error}")
