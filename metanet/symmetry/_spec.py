"""The symmetries of an architecture as a value."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoints import atomic_write
from ..errors import MetanetError
from ._axes import Axis, axis_from_json, axis_to_json, concats_of, fixed_of, leaves_of

if TYPE_CHECKING:
    from ._transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Items that may be exchanged, together with everything attached to them.

    Attributes:
        name: after the layer that makes the neurons.
        size: number of items.
        keys: names of other groups: one independent element per index of these (dims keyed by head).
        kind: what acts on it: ``"permutation"``, or ``"fixed"`` for a named axis that only serves as a key.
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


@dataclass(frozen=True)
class SymmetrySpec:
    """The groups of neurons of an architecture, and how every tensor is made of them.

    ``print(spec)`` shows it, ``spec.sample()`` draws a random element of the symmetry group.

    Attributes:
        groups: in the order of the network.
        tensors: every parameter and floating-point buffer, by state dict name.
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
            raise MetanetError(f"no group {group!r}; the groups are {', '.join(self.by_name)}") from None

    @cached_property
    def _users(self) -> Mapping[str, list[str]]:
        """The tensors that each group acts on."""
        users: dict[str, list[str]] = {}
        for name, tensor in self.tensors.items():
            for group in dict.fromkeys(leaf.group for axis in tensor.axes for leaf in leaves_of(axis)):
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
                elements[group.name] = torch.rand(*keys, group.size, generator=generator).argsort(-1)
        return Transform(self, elements)

    def explain(self, name: str) -> str:
        """Why the axes of a tensor are as they are.

        Raises:
            MetanetError: no tensor of this name.
        """
        if name not in self.tensors:
            raise MetanetError(f"no tensor {name!r} in this spec; names look like {', '.join(list(self.tensors)[:3])}")
        tensor = self.tensors[name]
        lines = [f"{name} {tensor.shape} {tensor.dtype}"]
        if tensor.tied_to:
            lines.append(f"  another name of {tensor.tied_to}")
        for number, axis in enumerate(tensor.axes):
            lines.append(f"  axis {number}: {axis}")
            for concat in concats_of(axis):
                if concat.why:
                    lines.append(f"    {' | '.join(str(p.size) for p in concat.parts)}: cut by {concat.why}")
            for why, size in _by_reason(axis).items():
                lines.append(f"    {size} fixed: {why}")
            for group in dict.fromkeys(leaf.group for leaf in leaves_of(axis)):
                users = self._users.get(group, ())
                per = f" (one arrangement per {', '.join(self[group].keys)})" if self[group].keys else ""
                lines.append(f"    moves with {group}{per}, shared by {len(users)} tensors: {', '.join(users[:4])}")
        return "\n".join(lines)

    def __str__(self) -> str:
        movable = sum(any(True for a in t.axes for _ in leaves_of(a)) for t in self.tensors.values())
        lines = [f"SymmetrySpec: {len(self.groups)} groups, {movable} of {len(self.tensors)} tensors move"]
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
            {"name": g.name, "size": g.size, "keys": list(g.keys), "kind": g.kind, "also": sorted(g.also)}
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
    def from_json(cls, data: Mapping[str, Any]) -> "SymmetrySpec":
        try:
            groups = tuple(
                Group(**{**g, "keys": tuple(g["keys"]), "also": frozenset(g["also"])}) for g in data["groups"]
            )
            tensors = {
                n: TensorAxes(
                    shape=tuple(t["shape"]),
                    dtype=t["dtype"],
                    axes=tuple(map(axis_from_json, t["axes"])),
                    tied_to=t["tied_to"],
                )
                for n, t in data["tensors"].items()
            }
        except (KeyError, TypeError) as e:
            raise MetanetError(f"not a symmetry spec: {type(e).__name__}: {e}") from e
        return cls(groups, tensors)

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
        return cls.from_json(read_json(path))


def _by_reason(axis: Axis) -> dict[str, int]:
    """How many items of an axis are fixed for each reason."""
    sizes: dict[str, int] = {}
    for part in fixed_of(axis):
        sizes[part.reason] = sizes.get(part.reason, 0) + part.size
    return sizes


def read_json(path: str | Path) -> Any:
    """A JSON file's content.

    Raises:
        MetanetError: the file is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise MetanetError(f"no such file: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise MetanetError(f"{path} is not JSON: {e}") from None
