"""The symmetries of an architecture as a value."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoints import atomic_write
from ..documents import read_json, validated
from ..errors import MetanetError, brief, listed
from ..tracing import is_integer
from ._axes import (
    Axis,
    Fixed,
    Leaf,
    axis_to_json,
    concats_of,
    fixed_of,
    leaves_of,
    mapped,
)
from ._documents import SpecFile, axis_of, check_spec

if TYPE_CHECKING:
    from ._transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Items that may be exchanged, together with everything attached to them.

    Attributes:
        name: after the layer that makes the neurons.
        size: number of items.
        keys: names of other groups: one independent element per index of these (dims keyed by
            head).
        kind: what acts on it: ``"permutation"``, or ``"fixed"`` for a named axis that only serves
            as a key.
        also: what the activations allow besides (``"sign"``, ``"scale"``).
    """

    name: str
    size: int
    keys: tuple[str, ...] = ()
    kind: str = "permutation"
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorAxes:
    """How the axes of one tensor are made.

    Attributes:
        shape, dtype: of the tensor; dtype as text.
        axes: one expression per axis.
        tied_to: the first name of the same tensor, when this is another name of it.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[Axis, ...]
    tied_to: str | None = None

    @property
    def integer(self) -> bool:
        """Whether it holds integers or truth values, which move with the neurons but are no
        weights."""
        return is_integer(self.dtype)

    @property
    def is_complex(self) -> bool:
        """Whether its entries are complex numbers; its axes are those of the tensor, without one
        for the parts."""
        return self.dtype.startswith("complex")


@dataclass(frozen=True, repr=False)
class SymmetrySpec:
    """The groups of neurons of an architecture, and how every tensor is made of them.

    ``print(spec)`` shows it, ``spec.sample()`` draws a random element of the symmetry group.

    Attributes:
        groups: in the order of the network.
        tensors: every parameter and floating-point or complex buffer, by state dict name, and those
            buffers of integers and bools (masks, index tables) that move with some group.
    """

    groups: tuple[Group, ...]
    tensors: Mapping[str, TensorAxes]

    @cached_property
    def by_name(self) -> Mapping[str, Group]:
        """The groups by name."""
        return {g.name: g for g in self.groups}

    def __getitem__(self, group: str) -> Group:
        try:
            return self.by_name[group]
        except KeyError:
            raise MetanetError(
                f"no group {brief(group)!r}; the groups are {listed(self.by_name)}"
            ) from None

    @cached_property
    def _users(self) -> Mapping[str, list[str]]:
        """The tensors that each group acts on."""
        users: dict[str, list[str]] = {}
        for name, tensor in self.tensors.items():
            for group in dict.fromkeys(
                leaf.group for axis in tensor.axes for leaf in leaves_of(axis)
            ):
                users.setdefault(group, []).append(name)
        return users

    def identity(self) -> "Transform":
        """The transform that changes nothing."""
        from ._transform import Transform

        return Transform(self, {})

    def sample(self, generator: torch.Generator | None = None) -> "Transform":
        """A random transform, uniform over the group.

        Args:
            generator: source of randomness; PyTorch's global one when left out.
        """
        from ._transform import Transform

        elements = {}
        for group in self.groups:
            if group.kind == "permutation":
                keys = [self[k].size for k in group.keys]
                elements[group.name] = torch.rand(*keys, group.size, generator=generator).argsort(
                    -1
                )
        return Transform(self, elements)

    def holding(self, groups: Mapping[str, str]) -> "SymmetrySpec":
        """The spec in which some groups keep their place.

        Args:
            groups: their names, and why.
        """
        held = tuple(
            replace(g, kind="fixed", keys=(), also=frozenset()) if g.name in groups else g
            for g in self.groups
        )
        tensors = {
            name: replace(tensor, axes=tuple(_held(axis, groups) for axis in tensor.axes))
            for name, tensor in self.tensors.items()
        }
        return SymmetrySpec(held, tensors)

    def explain(self, name: str) -> str:
        """Why the axes of a tensor are as they are.

        Raises:
            MetanetError: no tensor of this name.
        """
        if name not in self.tensors:
            raise MetanetError(
                f"no tensor {brief(name)!r} in this spec; names look like {listed(self.tensors, 3)}"
            )
        tensor = self.tensors[name]
        lines = [f"{name} {tensor.shape} {tensor.dtype}"]
        if tensor.tied_to:
            lines.append(f"  another name of {tensor.tied_to}")
        for number, axis in enumerate(tensor.axes):
            lines.append(f"  axis {number}: {axis}")
            for concat in concats_of(axis):
                if concat.why:
                    lines.append(
                        f"    {' | '.join(str(p.size) for p in concat.parts)}: cut by {concat.why}"
                    )
            for why, size in _by_reason(axis).items():
                lines.append(f"    {size} fixed: {why}")
            for group in dict.fromkeys(leaf.group for leaf in leaves_of(axis)):
                users = self._users.get(group, ())
                per = (
                    f" (one arrangement per {', '.join(self[group].keys)})"
                    if self[group].keys
                    else ""
                )
                lines.append(
                    f"    moves with {group}{per}, shared by {len(users)} tensors: {', '.join(users[:4])}"
                )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"SymmetrySpec({len(self.groups)} groups, {len(self.tensors)} tensors)"

    def _repr_html_(self) -> str:
        """For notebooks: a table of the groups, and one of the tensors that unfolds."""
        groups = [
            (f"{g.name}[{g.size}]", g.kind, ", ".join(g.keys), ", ".join(sorted(g.also)))
            for g in self.groups
        ]
        tensors = [
            (n, " ".join(map(str, t.shape)), "; ".join(map(str, t.axes)))
            for n, t in self.tensors.items()
        ]
        return (
            f"{html_table(('group', 'kind', 'one per', 'also'), groups)}"
            f"<details><summary>{len(tensors)} tensors</summary>"
            f"{html_table(('tensor', 'shape', 'axes'), tensors)}</details>"
        )

    def __str__(self) -> str:
        movable = sum(
            any(True for a in t.axes for _ in leaves_of(a)) for t in self.tensors.values()
        )
        lines = [
            f"SymmetrySpec: {len(self.groups)} groups, {movable} of {len(self.tensors)} tensors move"
        ]
        for g in self.groups:
            per = f" per {', '.join(g.keys)}" if g.keys else ""
            also = f" also {', '.join(sorted(g.also))}" if g.also else ""
            lines.append(f"  {g.name}[{g.size}] {g.kind}{per}{also}")
        width = max((len(n) for n in self.tensors), default=0)
        lines += [f"  {n:<{width}}  {'  '.join(map(str, t.axes))}" for n, t in self.tensors.items()]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        groups = [
            {
                "name": g.name,
                "size": g.size,
                "keys": list(g.keys),
                "kind": g.kind,
                "also": sorted(g.also),
            }
            for g in self.groups
        ]
        tensors = {
            n: {
                "shape": list(t.shape),
                "dtype": t.dtype,
                "axes": [axis_to_json(a) for a in t.axes],
                "tied_to": t.tied_to,
            }
            for n, t in self.tensors.items()
        }
        return {"groups": groups, "tensors": tensors}

    @classmethod
    def from_json(
        cls,
        data: Any,
        place: str = "the symmetry spec",
        *,
        error: type[MetanetError] = MetanetError,
    ) -> "SymmetrySpec":
        """The spec that :meth:`to_json` describes, checked: sizes, groups and shapes fit each
        other.

        Args:
            data: parsed JSON.
            place: how messages name where it comes from.
            error: the class of what is raised.

        Raises:
            MetanetError: it is of another form, or its parts contradict each other.
        """
        file = validated(SpecFile, data, place, error=error)
        groups = tuple(
            Group(name=g.name, size=g.size, keys=tuple(g.keys), kind=g.kind, also=frozenset(g.also))
            for g in file.groups
        )
        tensors = {
            n: TensorAxes(
                shape=tuple(t.shape),
                dtype=t.dtype,
                axes=tuple(map(axis_of, t.axes)),
                tied_to=t.tied_to,
            )
            for n, t in file.tensors.items()
        }
        spec = cls(groups, tensors)
        check_spec(spec, place, error)
        return spec

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        with atomic_write(path) as temporary:
            Path(temporary).write_text(json.dumps(self.to_json(), indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "SymmetrySpec":
        """Read what :meth:`save` wrote.

        Raises:
            MetanetError: the file is missing or no spec.
        """
        return cls.from_json(read_json(path), f"'{path}'")


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table for notebooks; cells are text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _held(axis: Axis, groups: Mapping[str, str]) -> Axis:
    """The axis with some groups fixed."""

    def held(part: Leaf | Fixed) -> Axis:
        if isinstance(part, Leaf) and part.group in groups:
            return Fixed(part.size, groups[part.group], part.group)
        return part

    return mapped(axis, held)


def _by_reason(axis: Axis) -> dict[str, int]:
    """How many items of an axis are fixed for each reason."""
    sizes: dict[str, int] = {}
    for part in fixed_of(axis):
        sizes[part.reason] = sizes.get(part.reason, 0) + part.size
    return sizes
