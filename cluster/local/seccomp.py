"""Seccomp user notifications: system calls of a process that stop until another process answers them (Linux).

It uses the standard library only, since processes that run without any other import it. The numbers are the kernel's,
of x86-64 and aarch64 (seccomp_unotify(2), include/uapi/linux/seccomp.h).
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import functools
import mmap
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

SYNC, RENAME = ("fsync", "fdatasync"), ("rename",)
DEFAULT = (*SYNC, *RENAME)
"""The calls that are trapped where nobody names any: few, and those that make data durable."""
ON_REQUEST = ("write", "pwrite64", "fallocate", "ftruncate")
CALLS = (*DEFAULT, *ON_REQUEST)
"""All that can be trapped; ``rename`` is whichever of the kernel's three a member uses."""

_X86_64 = {
    "write": 1, "pwrite64": 18, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "rename": 82, "renameat": 264,
    "fallocate": 285, "renameat2": 316, "seccomp": 317,
}  # fmt: skip
_AARCH64 = {
    "renameat": 38, "ftruncate": 46, "fallocate": 47, "write": 64, "pwrite64": 68, "fsync": 82, "fdatasync": 83,
    "renameat2": 276, "seccomp": 277,
}  # fmt: skip
# By the machine's name: its numbers, and the word of linux/audit.h that a filter sees.
_MACHINES = {"x86_64": (_X86_64, 0xC000003E), "aarch64": (_AARCH64, 0xC00000B7), "arm64": (_AARCH64, 0xC00000B7)}
_NUMBERS, _ARCH = _MACHINES.get(platform.machine(), ({}, 0))

# Of every machine; not every Python has what calls them.
_PIDFD_SEND_SIGNAL, _PIDFD_OPEN = 424, 434
_PR_SET_NO_NEW_PRIVS, _PR_SET_PTRACER = 38, 0x59616D61
_SET_MODE_FILTER = 1
_SPEC_ALLOW, _NEW_LISTENER, _WAIT_KILLABLE = 1 << 2, 1 << 3, 1 << 5
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _ANSWER, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104
_WAKE_ON_SAME_CPU, _GO_ON = 1, 1
_NOTIFICATION = struct.Struct("QIIiIQ6Q")
_RESPONSE = struct.Struct("QqiI")
_INSTRUCTION = struct.Struct("HBBI")
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06


class Trapped(NamedTuple):
    """A call that waits for an answer.

    Attributes:
        id: the kernel's, of this notification; a call that a signal interrupts is notified anew, under another.
        thread: that makes the call.
        number: of the system call.
        arguments: all six.
    """

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def names_by_number() -> dict[int, str]:
    """Return the call, one of CALLS, that each number of this machine means."""
    return {number: "rename" if name.startswith("rename") else name for name, number in _NUMBERS.items()}


def installer(calls: Iterable[str], tracer: int) -> Callable[[], tuple[int, int]]:
    """Return what a forked child calls before it becomes a member: from then on its calls of these names stop.

    Takes names of CALLS, and the process that will answer, which may then read the member's memory. What is returned
    is meant for ``preexec_fn``. It returns a descriptor to answer calls at and one of the process itself, both of
    which close when the member's program begins; it raises OSError.
    """
    wanted = set(calls)
    code = ctypes.create_string_buffer(_filter(each for each, name in names_by_number().items() if name in wanted))
    program = _Program(len(code) // _INSTRUCTION.size, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    number = _NUMBERS["seccomp"]

    def install() -> tuple[int, int]:
        assert code  # the program points to it
        process = _checked(libc.syscall(_PIDFD_OPEN, os.getpid(), 0))
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_PTRACER, ctypes.c_ulong(tracer), 0, 0, 0)  # refused where there is no yama, which is as well
        # Go interrupts its threads with signals. WAIT_KILLABLE (Linux 5.19) keeps them from a call that is held.
        flags = _SPEC_ALLOW | _NEW_LISTENER
        listener = libc.syscall(number, _SET_MODE_FILTER, flags | _WAIT_KILLABLE, ctypes.byref(program))
        if listener < 0:
            listener = _checked(libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(program)))
        return listener, process

    return install


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def kill(process: int) -> None:
    """Send SIGKILL to the process of a descriptor. It never meets another one. Raises OSError where it has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.syscall(_PIDFD_SEND_SIGNAL, process, int(signal.SIGKILL), None, 0))


def _filter(numbers: Iterable[int]) -> bytes:
    """Return the program: these calls are notified, every other one is done as ever."""
    numbers = sorted(numbers)
    program = [(_LOAD, 0, 0, 4), (_IS, 1, 0, _ARCH), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    program += [(_IS, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def hurry(listener: int) -> None:
    """Have the kernel wake each side on the CPU of the other, where it knows how to (Linux 6.6): that is quicker."""
    try:
        fcntl.ioctl(listener, _SET_FLAGS, _WAKE_ON_SAME_CPU)
    except OSError:
        return


def receive(listener: int) -> Trapped | None:
    """Return the next call that waits; None where it was interrupted meanwhile. Blocks where there is none."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer, True)
    except OSError:
        return None
    call, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Trapped(call, thread, number, tuple(arguments))


def go_on(listener: int, call: int) -> bool:
    """Have the kernel do a call. Returns whether the call still waited: a signal may have interrupted it."""
    return _answer(listener, _RESPONSE.pack(call, 0, 0, _GO_ON))


def answer(listener: int, call: int, error: int) -> bool:
    """Answer a call in place of the kernel: 0, or an error's number. Returns the same as ``go_on``."""
    return _answer(listener, _RESPONSE.pack(call, 0, -error, 0))


def _answer(listener: int, response: bytes) -> bool:
    try:
        fcntl.ioctl(listener, _ANSWER, response)
    except OSError:
        return False
    return True


def paths(trapped: Trapped, call: str) -> tuple[str, ...]:
    """Return the paths of the files that a call is about: one, or the old and the new one of a rename.

    A descriptor that is no file has a word such as ``socket:[123]``. One that cannot be read is ``?``.
    """
    thread, arguments = trapped.thread, trapped.arguments
    if call != "rename":
        try:
            # `Path` costs more than the call itself.
            return (os.readlink(f"/proc/{thread}/fd/{arguments[0] & 0xFFFFFFFF}"),)  # noqa: PTH115
        except OSError:
            return ("?",)
    first, second = (0, 1) if trapped.number == _NUMBERS.get("rename") else (1, 3)
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            return (_text_at(memory.fileno(), arguments[first]), _text_at(memory.fileno(), arguments[second]))
    except OSError:
        return ("?",)


def _text_at(memory: int, address: int) -> str:
    """Return the text that ends with a zero byte at an address of another process."""
    found = b""
    while b"\0" not in found:
        size = mmap.PAGESIZE - (address + len(found)) % mmap.PAGESIZE  # the page after it need not be there
        piece = os.pread(memory, size, address + len(found))
        if not piece or len(found) > mmap.PAGESIZE:
            break
        found += piece
    return os.fsdecode(found.partition(b"\0")[0])


# Whether it works here


@functools.cache
def why_not() -> str:
    """Return why calls of members cannot be trapped here, in a few words; empty where they can.

    It tries, in a process of its own: containers, security modules and old kernels refuse in different ways.
    """
    if not sys.platform.startswith("linux"):
        return f"seccomp user notifications need Linux, and this is {platform.system()}"
    if not _NUMBERS:
        return f"system calls can be trapped on x86-64 and aarch64, and this is {platform.machine()}"
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.append({root!r}); from cluster.local.seccomp import tried; print(tried())"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"whether system calls can be trapped could not be tried: {exc}"
    last = done.stderr.strip().rpartition("\n")[2]
    return done.stdout.strip() if done.returncode == 0 else f"trapping a system call failed: {last}"


def tried() -> str:
    """Trap a rename and an fsync of a child, and return why that does not work; empty where it does.

    It forks: for a process of its own.
    """
    with tempfile.TemporaryDirectory(prefix="raftload-") as folder:
        old, new = f"{folder}/old", f"{folder}/new"
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        install = installer(DEFAULT, os.getpid())
        child = os.fork()
        if child == 0:
            _be_trapped(install, theirs, old, new)
        try:
            theirs.close()
            return _trap(ours, child, [(old,), (old, new)])
        except TimeoutError:
            return "a trapped system call did not arrive"
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)


def _be_trapped(install: Callable[[], tuple[int, int]], sock: socket.socket, old: str, new: str) -> None:
    try:
        with open(old, "wb") as file:  # noqa: PTH123
            try:
                listener, _ = install()
            except OSError as exc:
                sock.sendall(str(exc.strerror).encode())
                os._exit(0)
            hand_over(sock, listener)
            os.fsync(file.fileno())
            os.rename(old, new)  # noqa: PTH104
            sock.sendall(b".")
    finally:
        os._exit(0)


def _trap(sock: socket.socket, child: int, expected: list[tuple[str, ...]]) -> str:
    message, descriptors = taken_over(sock)
    release = platform.release()
    if not descriptors:
        return f"Linux {release} does not let an ordinary process trap system calls ({message.decode() or 'no answer'})"
    listener, names = descriptors[0], names_by_number()
    for wanted in expected:
        if not select.select([listener], [], [], 10)[0] or (trapped := receive(listener)) is None:
            raise TimeoutError
        found = paths(trapped, names.get(trapped.number, ""))
        if found != wanted:
            scope = Path("/proc/sys/kernel/yama/ptrace_scope")
            yama = f"; yama's ptrace_scope is {scope.read_text().strip()}, 0 or 1 is needed" if scope.exists() else ""
            return f"/proc does not tell the files of process {child}, although it is a child{yama}"
        if not go_on(listener, trapped.id):
            return f"Linux {release} cannot let a trapped call go on; 5.5 or newer is needed"
    return "" if sock.recv(1) == b"." else f"a trapped call that was to go on failed under Linux {release}"


def hand_over(sock: socket.socket, *descriptors: int) -> None:
    """Send descriptors over a Unix socket, by a call that is never trapped. Raises OSError."""
    sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])


def taken_over(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return the message that is next on a Unix socket, and the descriptors that came with it. Raises OSError."""
    found = array.array("i")
    message, more, _, _ = sock.recvmsg(256, socket.CMSG_SPACE(4 * found.itemsize))
    for level, kind, data in more:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return message, list(found)
