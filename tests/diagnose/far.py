"""Packets to and from some ports of loopback that arrive late, in a network namespace of their own (Linux, root).

    unshare --net python -m tests.diagnose.far 0.04 0 2379 22379     # prints `ready`, and goes on until its stdin ends

A relay of connections cannot stand for a far client: its kernel accepts at once, however far the server is. So packets
are late: loopback's to and from these ports go to a TUN device, where this process reads them and writes them back.
Kernels have `netem` for that, though not all of them.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_DEVICE = "far0"
_TUN = "/dev/net/tun"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_LARGEST = 1 << 16
# A packet of loopback has up to 64 KiB otherwise, which no network has.
_MTU = 1500


def why_not() -> str:
    """Return why packets cannot be made late here; empty where they can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"there is no {_TUN}"
    words = ("unshare", "--net", sys.executable, __file__, "--try")
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        return f"packets cannot be redirected: {exc}"
    return f"packets cannot be redirected: {done.stderr.strip()[-200:]}" if done.returncode else ""


def redirect(ports: Sequence[int]) -> int:
    """Send loopback's packets to and from these ports to a new TUN device, and return its descriptor.

    It is for a network namespace of this process: it changes loopback itself. Raises OSError, CalledProcessError.
    """
    device = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    _do("ip", "link", "set", "lo", "up", "mtu", str(_MTU))
    _do("ip", "link", "set", _DEVICE, "up", "mtu", str(_MTU))
    # What comes back from the device has addresses of loopback.
    for name, value in (("route_localnet", 1), ("accept_local", 1), ("rp_filter", 0)):
        for each in (_DEVICE, "all"):
            Path(f"/proc/sys/net/ipv4/conf/{each}/{name}").write_text(f"{value}\n")
    _do("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb")
    for port in ports:
        for end in ("sport", "dport"):
            _do("tc", "filter", "add", "dev", "lo", "parent", "1:", "protocol", "ip", "prio", "1", "u32",
                "match", "ip", "protocol", "6", "0xff", "match", "ip", end, str(port), "0xffff",
                "action", "mirred", "egress", "redirect", "dev", _DEVICE)  # fmt: skip
    return device


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def pass_on(device: int, delay_s: float, jitter_s: float, until: int) -> None:
    """Write back what comes from the device until something can be read from ``until``.

    Each packet is late by so many seconds, up to ``jitter_s`` more or less at random, and stays behind those that its
    connection sent before it.
    """
    late: list[tuple[float, int, bytes]] = []
    last: dict[bytes, float] = {}
    number = 0
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        ready, _, _ = select.select([device, until], [], [], wait)
        if until in ready:
            return
        if device in ready:
            try:
                while True:
                    packet = os.read(device, _LARGEST)
                    number += 1
                    due = time.monotonic() + delay_s + random.uniform(-jitter_s, jitter_s)
                    ends = packet[12:24]  # both addresses and ports, where a header has no options
                    due = last[ends] = max(due, last.get(ends, 0.0))
                    heapq.heappush(late, (due, number, packet))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while late and late[0][0] <= now:
            try:
                os.write(device, heapq.heappop(late)[2])
            except BlockingIOError:  # a full queue loses it, as it would anywhere; TCP sends it again
                continue


def main() -> None:
    """Take seconds of delay and of jitter, and ports, and delay their packets until stdin ends."""
    if sys.argv[1:] == ["--try"]:
        redirect([2379])
        return
    delay_s, jitter_s = map(float, sys.argv[1:3])
    device = redirect([int(each) for each in sys.argv[3:]])
    print("ready", flush=True)
    pass_on(device, delay_s, jitter_s, sys.stdin.fileno())


if __name__ == "__main__":
    main()
