"""Networks with their features zipped: what makes a feature is averaged, what reads it stays that
of each network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import MetanetError
from ...symmetry import SymmetrySpec, Transform
from .._average import average
from .._part import Part
from ._roles import Roles, along, groups_on


@dataclass(frozen=True)
class Zip:
    """How the tensors of k networks become one's.

    Attributes:
        found: group -> ``(k, n)``: for every feature of every network the one that it becomes part
            of.
        transforms: what moves each network's other neurons first.
        heads: ``"average"``, ``"stack"``, or for every output the number of the network that it is
            taken from.
        own: tensors that are those of one network: beyond where zipping stops.
        task: that network.
    """

    spec: SymmetrySpec
    roles: Roles
    found: Mapping[str, Tensor]
    transforms: Sequence[Transform]
    heads: str | Sequence[int]
    own: frozenset[str]
    task: int

    def merged(self, part: Part) -> Tensor:
        """One tensor of the result."""
        name = part.name
        if name not in self.spec.tensors:
            return average(part.tensors, [1.0] * len(part.tensors), "zipit")
        moved = [
            self._moved(t, name, x) for t, x in zip(self.transforms, part.tensors, strict=True)
        ]
        groups = groups_on(self.spec, name, self.found)
        if name in self.own:
            return self._zipped(name, self.task, moved[self.task])
        if name in self.roles.outputs and self.heads != "average":
            return self._head(name, [self._zipped(name, m, x) for m, x in enumerate(moved)])
        if all(self._is_relabelling(g) for g in groups):
            return average(
                [self._relabelled(name, m, x) for m, x in enumerate(moved)],
                [1.0] * len(moved),
                "zipit",
            )
        first, *others = (self._zipped(name, m, x) for m, x in enumerate(moved))
        for other in others:
            first = first + other
        return first / len(moved)

    def _moved(self, transform: Transform, name: str, tensor: Tensor) -> Tensor:
        """A network's tensor, complex ones as their parts, as the spec's axes do not count
        these."""
        if self.spec.tensors[name].is_complex:
            return torch.view_as_real(
                transform.apply(name, torch.view_as_complex(tensor.contiguous()))
            )
        return transform.apply(name, tensor)

    def _head(self, name: str, tensors: Sequence[Tensor]) -> Tensor:
        axis = self.roles.outputs[name]
        if self.heads == "stack":
            return torch.cat(list(tensors), axis)
        picked = [tensors[m].narrow(axis, row, 1) for row, m in enumerate(self.heads)]
        return torch.cat(picked, axis)

    def shape(self, name: str, shape: torch.Size) -> torch.Size:
        """Of a tensor of the result."""
        if self.heads != "stack" or name not in self.roles.outputs or name in self.own:
            return shape
        axis = self.roles.outputs[name]
        return torch.Size(s * len(self.transforms) if n == axis else s for n, s in enumerate(shape))

    def _is_relabelling(self, group: str) -> bool:
        """Whether every feature holds exactly one of every network."""
        clusters = self.found[group]
        return bool((clusters.sort(1).values == torch.arange(clusters.shape[1])).all())

    def _relabelled(self, name: str, model: int, tensor: Tensor) -> Tensor:
        def act(values: Tensor, at: int, group: str, number: int) -> Tensor:
            if group not in self.found:
                return values
            return values.index_select(at, self.found[group][model].argsort().to(values.device))

        return along(tensor, self.spec.tensors[name].axes, act)

    def _zipped(self, name: str, model: int, tensor: Tensor) -> Tensor:
        """A network's share: the sum of these, divided by how many they are, is the merged
        tensor."""

        def act(values: Tensor, at: int, group: str, number: int) -> Tensor:
            if group not in self.found:
                return values
            cluster = self.found[group].to(values.device)
            out = torch.zeros_like(values).index_add_(at, cluster[model], values)
            if not self.roles.makes(name, number):
                return out
            sizes = torch.bincount(cluster.flatten(), minlength=cluster.shape[1]).to(values.dtype)
            return out * (len(cluster) / sizes).view(
                [-1 if axis == at else 1 for axis in range(values.ndim)]
            )

        return along(tensor, self.spec.tensors[name].axes, act)

    def check_heads(self) -> None:
        """Raises MetanetError if the heads can't be as asked for."""
        names = [n for n in self.roles.outputs if n not in self.own]
        if not names:
            raise MetanetError(
                f"heads={self.heads!r}: there is no head to choose it for: it lies beyond the stop, or is tied to an "
                "embedding"
            )
        tied = {t.tied_to for t in self.spec.tensors.values()} | {
            n for n, t in self.spec.tensors.items() if t.tied_to
        }
        if shared := tied & {*names}:
            raise MetanetError(
                f"heads={self.heads!r}: {min(shared)} is tied to another tensor, which is no head"
            )
        if self.heads == "stack":
            return
        k = len(self.transforms)
        if any(not isinstance(m, int) or isinstance(m, bool) or not 0 <= m < k for m in self.heads):
            raise MetanetError(
                f"heads={list(self.heads)}: give 'average', 'stack', or numbers from 0 to {k - 1}"
            )
        for name in names:
            size = self.spec.tensors[name].shape[self.roles.outputs[name]]
            if size != len(self.heads):
                raise MetanetError(
                    f"heads has {len(self.heads)} numbers, but {name} makes {size} outputs"
                )
