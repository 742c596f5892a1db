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
    writes = (
        tuple((i, a.name) for i, a in enumerate(schema.arguments) if _is_written(a))
        if schema.is_mutable
        else ()
    )
    out = frozenset(a.name for a in schema.arguments if a.kwarg_only and _is_written(a))
    in_place = bool(writes) and base.endswith("_") and not base.endswith("__")
    name = base[:-1] if in_place else base
    functional = _functional(func, namespace, name, out) if writes else func
    known = namespace == "aten"
    return Facts(
        name="aten.view.dtype" if func is torch.ops.aten.view.dtype else f"{namespace}.{name}",
        base=base,
        functional=functional,
        writes=writes,
        out=out if functional is not None else frozenset(),
        overwrites=known and base in _OVERWRITE,
        reads=not (known and base in _SHAPE_ONLY),
        unspecified=known and base in _UNSPECIFIED,
        identity=known and base in _IDENTITY,
        keeps_dtype=name not in _COMPARISONS,
        relabels=torch.Tag.inplace_view in func.tags
        and functional is not None
        and functional.is_view,
        composite=torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        ),
        separates=known and base in _SEPARATES,
    )


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _functional(
    func: OpOverload, namespace: str, name: str, out: frozenset[str]
) -> OpOverload | None:
    """The overload with the same arguments, save receivers, that writes nothing."""
    signature = [(a.name, str(a.type)) for a in func._schema.arguments if a.name not in out]
    for overload in _overloads(getattr(getattr(torch.ops, namespace), name, None)):
        schema = overload._schema
        if not schema.is_mutable and [(a.name, str(a.type)) for a in schema.arguments] == signature:
            return overload
    return None


def _overloads(packet: Any) -> Iterator[OpOverload]:
    for name in packet.overloads() if packet is not None else ():
        yield getattr(packet, name)
