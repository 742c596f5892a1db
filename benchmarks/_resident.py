"""Memory that this process takes, and the most that it took since a moment of our choice."""

import ctypes
import gc
import resource
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LIMIT = 16 * 2**30  # bytes of a process that goes wild: the machine is not to suffer


def settle() -> None:
    """What there is now stays: later collections of garbage need not look at it."""
    gc.collect()
    gc.freeze()


def start() -> int:
    """Give free memory back, forget the peak so far, and say how much is taken now, in bytes.

    Without giving back, what one reader took and left to the allocator would hide what the next one
    takes.
    """
    gc.collect(1)  # of what came lately: looking at all takes half a second
    if not _RESET.exists():
        return peak()
    ctypes.CDLL(None).malloc_trim(0)
    _RESET.write_text("5")  # the peak becomes what is taken now
    return peak()


def peak() -> int:
    """The most bytes since :func:`start`; where there is no /proc, since the process began."""
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def limit() -> None:
    """No more than 16 GiB for this process from now on, touched or not."""
    resource.setrlimit(resource.RLIMIT_AS, (_LIMIT, resource.RLIM_INFINITY))
