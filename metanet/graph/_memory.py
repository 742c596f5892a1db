"""A graph that would not fit is refused before memory runs out."""

from contextlib import suppress
from pathlib import Path

from ..errors import MetanetError
from .template._template import GraphTemplate

BYTES_PER_EDGE = 88  # edge_index, kernel_pos, five integers, the value
_PEAK = 1.25  # what is made on the way, of a block at a time
_SMALL = 10_000_000  # edges that nobody asks the system about


def refuse_too_large(template: GraphTemplate, graphs: int = 1) -> None:
    """Raise if so many graphs of a template would take more memory than there is.

    Raises:
        MetanetError: with the numbers, and what to do.
    """
    edges = template.num_edges * graphs
    if edges <= _SMALL:
        return
    needed, available = int(_PEAK * BYTES_PER_EDGE * edges), available_memory()
    if available is not None and needed > available:
        many = f"{graphs} graphs with " if graphs > 1 else ""
        raise MetanetError(
            f"the neuron graph has {many}{template.num_nodes:,} nodes and {template.num_edges:,} edges: "
            "it takes some "
            f"{byte_size(needed)} of memory, and {byte_size(available)} are available. "
            'granularity="tensor" makes a graph with one node for every group of neurons'
        )


def available_memory() -> int | None:
    """Bytes this process can still take: what the system says, and a container's limit; None where
    nothing says it."""
    found = []
    with suppress(OSError, ValueError, StopIteration, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(
            1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
        )
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        found.append(max(0, limit - int(Path("/sys/fs/cgroup/memory.current").read_text())))
    return min(found, default=None)


def byte_size(count: int | float) -> str:
    """Bytes for people: ``"1.5 MB"``."""
    power = 0
    while count >= 1000 and power < 3:
        count, power = count / 1000, power + 1
    return f"{count:,.{1 if power else 0}f} {('B', 'kB', 'MB', 'GB')[power]}"
