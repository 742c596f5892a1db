"""Networks with their features zipped: what makes a feature is averaged, what reads it stays that
of each network."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        name, count = part.name, len(part.tensors)
        if name not in self.spec.tensors:
            return average(part.tensors, [1.0] * count, "zipit")
        moved = []
        for transform, tensor in zip(self.transforms, part.tensors, strict=True):
            moved.append(self._moved(transform, name, tensor))
        if name in self.own:
            return self._zipped(name, self.task, moved[self.task])
        if name in self.roles.outputs and self.heads != "average":
            return self._head(name, self._all_zipped(name, moved))
        if all(self._is_relabelling(group) for group in groups_on(self.spec, name, self.found)):
            relabelled = [self._relabelled(name, m, tensor) for m, tensor in enumerate(moved)]
            return average(relabelled, [1.0] * count, "zipit")
        first, *others = self._all_zipped(name, moved)
        for other in others:
            first = first + other
        return first / count

    def _all_zipped(self, name: str, tensors: Sequence[Tensor]) -> Iterator[Tensor]:
        for model, tensor in enumerate(tensors):
            yield self._zipped(name, model, tensor)

    def _moved(self, transform: Transform, name: str, tensor: Tensor) -> Tensor:
        """A network's tensor, complex ones as their parts, as the spec's axes do not count
        these."""
        if not self.spec.tensors[name].is_complex:
            return transform.apply(name, tensor)
        whole = torch.view_as_complex(tensor.contiguous())
        return torch.view_as_real(transform.apply(name, whole))

    def _head(self, name: str, tensors: Iterable[Tensor]) -> Tensor:
        """The heads of all networks one after another, or of each output the one that knows it."""
        axis = self.roles.outputs[name]
        heads = list(tensors)
        if self.heads == "stack":
            return torch.cat(heads, axis)
        numbers = [number for number in self.heads if isinstance(number, int)]
        rows = [heads[number].narrow(axis, row, 1) for row, number in enumerate(numbers)]
        return torch.cat(rows, axis)

    def shape(self, name: str, shape: torch.Size) -> torch.Size:
        """Of a tensor of the result."""
        if self.heads != "stack" or name not in self.roles.outputs or name in self.own:
            return shape
        sizes = list(shape)
        sizes[self.roles.outputs[name]] *= len(self.transforms)
        return torch.Size(sizes)

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
        """A network's share: the sum of these, divided by how many they are, is the merged tensor.

        Of two networks whose features 0 and 1 become ``[0, 1]`` and ``[1, 1]``, what makes them is
        averaged over all that became one, what reads them is added up::

            makes  a0, a1 | b0, b1   (2 a0, 2/3 a1) + (0, 2/3 (b0 + b1))
                                     halved: (a0, (a1 + b0 + b1) / 3)
            reads  a0, a1 | b0, b1   (a0, a1) + (0, b0 + b1)
                                     halved: (a0 / 2, (a1 + b0 + b1) / 2)
        """

        def act(values: Tensor, at: int, group: str, number: int) -> Tensor:
            if group not in self.found:
                return values
            cluster = self.found[group].to(values.device)
            total = torch.zeros_like(values).index_add_(at, cluster[model], values)
            if not self.roles.makes(name, number):
                return total
            sizes = torch.bincount(cluster.flatten(), minlength=cluster.shape[1]).to(values.dtype)
            shape = [1] * values.ndim
            shape[at] = -1
            return total * (len(cluster) / sizes).view(shape)

        return along(tensor, self.spec.tensors[name].axes, act)

    def check_heads(self) -> None:
        """Raises MetanetError if the heads can't be as asked for."""
        names = [name for name in self.roles.outputs if name not in self.own]
        if not names:
            raise MetanetError(
                f"heads={self.heads!r}: there is no head to choose it for: it lies beyond the "
                "stop, or is tied to an embedding"
            )
        shared = self._tied() & {*names}
        if shared:
            raise MetanetError(
                f"heads={self.heads!r}: {min(shared)} is tied to another tensor, which is no head"
            )
        if self.heads != "stack":
            self._check_numbers(names)

    def _tied(self) -> set[str]:
        """All names of tensors that have several."""
        tied: set[str] = set()
        for name, tensor in self.spec.tensors.items():
            if tensor.tied_to:
                tied |= {name, tensor.tied_to}
        return tied

    def _check_numbers(self, names: Sequence[str]) -> None:
        """Raises MetanetError if there is not one number of a network for every output."""
        count = len(self.transforms)
        for model in self.heads:
            if not isinstance(model, int) or isinstance(model, bool) or not 0 <= model < count:
                raise MetanetError(
                    f"heads={list(self.heads)}: give 'average', 'stack', or numbers from 0 to "
                    f"{count - 1}"
                )
        for name in names:
            size = self.spec.tensors[name].shape[self.roles.outputs[name]]
            if size != len(self.heads):
                raise MetanetError(
                    f"heads has {len(self.heads)} numbers, but {name} makes {size} outputs"
                )
