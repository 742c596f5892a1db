"""Which way a forward pass takes where Python reads numbers from tensors: ``if h[0] > 0``,
``counts.tolist()``."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..tracing import EXITS, line_of_the_network

Ways = dict[str, tuple[Hashable, ...]]
"""For every line that reads numbers what the network did after each time: truth value read,
operations and settings."""


@contextmanager
def ways() -> Iterator[Ways]:
    """While active, notes the way that a forward pass takes.

    A branch shows in the operations that run between this reading and the next, a truth value in
    itself::

        if h[0, 0].item() > 0:      # reads at net.py:11
            h = -h                  # then: aten.neg, aten.addmm, ... or at once aten.addmm
    """
    taken: Ways = {}
    watch = _Watch()
    with watch, _Exits(watch):
        yield taken
    for place, way in watch.stretches:
        taken[place] = (*taken.get(place, ()), tuple(way))


class _Watch(TorchDispatchMode):
    """Notes readings, and the operations between them."""

    def __init__(self) -> None:
        super().__init__()
        self.stretches: list[tuple[str, list[Hashable]]] = []

    def read(self, *numbers: Any) -> None:
        """Python is reading numbers: a new stretch begins."""
        self.stretches.append((line_of_the_network(), [n for n in numbers if isinstance(n, bool)]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, (bool, int, float, complex)):
            self.read(out)
        elif self.stretches:
            self.stretches[-1][1].append(hash((func.name(), *_settings((args, kwargs)))))
        return out


class _Exits(TorchFunctionMode):
    """The readings of which no operation tells."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXITS:
            self.watch.read()
        return func(*args, **(kwargs or {}))


def _settings(x: Any) -> Iterator[Hashable]:
    """Numbers among arguments; of tensors the shape."""
    if isinstance(x, (list, tuple)):
        for part in x:
            yield from _settings(part)
    elif isinstance(x, dict):
        yield from _settings(list(x.values()))
    elif isinstance(x, Tensor):
        yield tuple(x.shape)
    elif isinstance(x, (bool, int, float, complex, str, torch.dtype)):
        yield x
