"""What the schema of an ATen function says: what it writes, what it only looks at, what its
functional twin is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from ._trace import tensors_in

_RANDOM = {
    "bernoulli_",
    "cauchy_",
    "exponential_",
    "geometric_",
    "log_normal_",
    "normal_",
    "random_",
    "uniform_",
}
_OVERWRITE = {"copy_", "fill_", "zero_", *_RANDOM}
_SHAPE_ONLY = {
    "empty_like",
    "full_like",
    "new_empty",
    "new_empty_strided",
    "new_full",
    "new_ones",
    "new_zeros",
    "ones_like",
    "rand_like",
    "randint_like",
    "randn_like",
    "zeros_like",
}
_UNSPECIFIED = {
    "empty",
    "empty_like",
    "empty_strided",
    "empty_permuted",
    "new_empty",
    "new_empty_strided",
}
_SEPARATES = {"unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes"}
_IDENTITY = {"alias", "detach", "lift", "lift_fresh"}
_COMPARISONS = {
    "eq",
    "ge",
    "gt",
    "le",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one overload.

    Attributes:
        name: without overload, functional: ``"aten.relu"`` for ``aten.relu_.default``. Only
            ``"aten.view.dtype"``, which has nothing in common with ``aten.view`` but the name,
            keeps its overload.
        base: the last part of the name as called: ``"relu_"``.
        functional: the overload that returns what this one writes; the function itself if it writes
            nothing, and ``None`` if there is no such overload.
        writes: arguments written, by position and name.
        out: those of them that are mere receivers (``out=``), by name.
        overwrites: the first argument gets values that do not depend on those it had.
        reads: of its tensors it needs more than shape and dtype.
        unspecified: what it returns holds any values.
        identity: what it returns is its argument.
        keeps_dtype: the functional overload returns the dtype of what is written, if its operands
            have it too.
        relabels: the tensor stays, its shape and strides become another view of the memory
            (``unsqueeze_``).
        composite: it is made of other functions for every device.
        separates: what it returns looks into its argument, of which PyTorch promises that nobody
            reads it again.
    """

    name: str
    base: str
    functional: OpOverload | None
    writes: tuple[tuple[int, str], ...]
    out: frozenset[str]
    overwrites: bool
    reads: bool
    unspecified: bool
    identity: bool
    keeps_dtype: bool
    relabels: bool
    composite: bool
    separates: bool

    @property
    def reads_bits(self) -> bool:
        """Whether what it returns reads the bits of its argument as numbers of another dtype."""
        return self.name == "aten.view.dtype"

    def written(self, args: Any, kwargs: Any) -> list[Tensor]:
        """The tensors among these arguments that a call writes into."""
        tensors: list[Tensor] = []
        for position, name in self.writes:
            tensors += tensors_in(args[position] if position < len(args) else kwargs.get(name))
        return tensors


@cache
def facts(func: OpOverload) -> Facts:
    """What is known of a function, once for all its calls."""
    schema = func._schema
    namespace, base = schema.name.split("::")
    # add_(self!, other): writes (0, "self");  add.out(self, other, *, out!): (2, "out"), a receiver
    written = [(i, a) for i, a in enumerate(schema.arguments) if _is_written(a)]
    writes = tuple([(i, a.name) for i, a in written])
    out = frozenset(a.name for _, a in written if a.kwarg_only)
    in_place = bool(writes) and base.endswith("_") and not base.endswith("__")
    name = base[:-1] if in_place else base
    functional = _functional(func, namespace, name, out) if writes else func
    aten = base if namespace == "aten" else ""
    return Facts(
        name="aten.view.dtype" if func is torch.ops.aten.view.dtype else f"{namespace}.{name}",
        base=base,
        functional=functional,
        writes=writes,
        out=out if functional is not None else frozenset(),
        overwrites=aten in _OVERWRITE,
        reads=aten not in _SHAPE_ONLY,
        unspecified=aten in _UNSPECIFIED,
        identity=aten in _IDENTITY,
        keeps_dtype=name not in _COMPARISONS,
        relabels=functional is not None and _relabels(func, functional),
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ),
        separates=aten in _SEPARATES,
    )


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _relabels(func: OpOverload, functional: OpOverload) -> bool:
    return torch.Tag.inplace_view in func.tags and functional.is_view


def _functional(
    func: OpOverload, namespace: str, name: str, out: frozenset[str]
) -> OpOverload | None:
    """The overload with the same arguments, save receivers, that writes nothing."""
    signature = _signature(func, but=out)
    for overload in _overloads(getattr(getattr(torch.ops, namespace), name, None)):
        is_pure = not overload._schema.is_mutable
        if is_pure and _signature(overload) == signature:
            return overload
    return None


def _signature(func: OpOverload, but: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Names and types of the arguments."""
    return [(a.name, str(a.type)) for a in func._schema.arguments if a.name not in but]


def _overloads(packet: Any) -> Iterator[OpOverload]:
    if packet is None:
        return
    for name in packet.overloads():
        yield getattr(packet, name)
