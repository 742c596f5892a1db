"""What the linear maps of a network are given: Gram matrices of the inputs of every matrix in its
parameters."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ...evaluation import Runner, entries
from ...tracing import tensors_in
from .._data import batch_size

_aten = torch.ops.aten
_PATCHES = 2**25  # values of unfolded images at once: 128 MiB


@dataclass(frozen=True)
class Block:
    """Matrices that lie one after the other in a parameter's memory: one of a linear layer, one per
    group or expert.

    Attributes:
        start: of the first, in values.
        batch: how many.
        rows, inputs: of each.
        transposed: stored as ``(inputs, rows)``.
    """

    start: int
    batch: int
    rows: int
    inputs: int
    transposed: bool

    @property
    def stop(self) -> int:
        """Behind the last value."""
        return self.start + self.batch * self.rows * self.inputs

    def of(self, tensor: Tensor) -> Tensor:
        """The matrices ``(batch, rows, inputs)``; a view if the tensor is contiguous."""
        flat = tensor.reshape(-1)[self.start : self.stop]
        if self.transposed:
            return flat.view(self.batch, self.inputs, self.rows).mT
        return flat.view(self.batch, self.rows, self.inputs)


Grams = dict[str, dict[Block, Tensor]]


@torch.no_grad()
def grams(network: nn.Module, data: Iterable[Any], run: Runner) -> tuple[Grams, set[str]]:
    """Means over samples of the inputs' outer products, ``(batch, inputs, inputs)`` in float64 on
    the CPU.

    Whatever multiplies inputs by a matrix out of a parameter counts, whichever module it stands in:
    linear layers, convolutions by their patches, packed and stacked matrices by their parts.
    Matrices that are used several times sum up. Tokens that a batch's ``attention_mask`` hides do
    not count.

    Args:
        network: a working copy.
        data: batches.
        run: on the network's device.

    Returns:
        By the first name of each parameter, and the names of parameters that are used in another
        way too.
    """
    watch = _Watch(network)
    samples = 0
    with _plain_kernels():
        for batch in data:
            mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
            watch.mask = (
                mask.bool().flatten().to(run.device)
                if isinstance(mask, Tensor) and mask.ndim == 2
                else None
            )
            samples += batch_size(batch)
            with watch:
                run(network, batch)
    return {
        n: {b: (g / samples).cpu() for b, g in found.items()} for n, found in watch.grams.items()
    }, watch.other


class _Watch(TorchDispatchMode):
    """Sees every operation of a pass, and which parameters it reads."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        tensors, first = entries(network)
        parameters = {id(p) for p in network.parameters()}
        self.names: dict[int, str] = {}
        self.grams: Grams = {}
        self.other: set[str] = set()
        self.mask: Tensor | None = None
        for name, tensor in tensors.items():
            if first[name] != name or id(tensor) not in parameters or not tensor.numel():
                continue
            if (
                tensor.untyped_storage().nbytes() != tensor.numel() * tensor.itemsize
                or not tensor.is_contiguous()
            ):
                tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
            self.names[tensor.untyped_storage().data_ptr()] = name
            if tensor.is_complex():
                self.other.add(name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [t for t in tensors_in((args, kwargs or {})) if self._name(t) is not None]
        if read:
            counted = self._products(func.overloadpacket, args)
            made = {t.untyped_storage().data_ptr() for t in tensors_in((out,))}
            for tensor in read:
                looked = made <= {tensor.untyped_storage().data_ptr()}  # views, shapes and the like
                if not looked and not any(tensor is c for c in counted):
                    self.other.add(self._name(tensor))
        return out

    def _name(self, tensor: Tensor) -> str | None:
        return self.names.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None

    def _products(self, packet: Any, args: tuple[Any, ...]) -> list[Tensor]:
        """Take in an operation's inputs; returns the parameters (or parts of them) that are thereby
        dealt with."""
        if packet is _aten.convolution:
            return self._convolution(*args)
        if packet in (_aten.mm, _aten.bmm):
            left, right = args[:2]
        elif packet in (_aten.addmm, _aten.baddbmm):
            left, right = args[1:3]
        elif packet is _aten.linear:
            left, right = args[0].flatten(0, -2), args[1].t()
        else:
            return []
        one, two = self._name(left), self._name(right)
        if (one is None) == (two is None) or left.is_complex():
            return []
        if one is not None:  # W x is x' W' transposed
            left, right, matrix = (
                right.mT,
                left.mT,
                args[0] if packet in (_aten.mm, _aten.bmm) else args[1],
            )
        else:
            matrix = args[1] if packet in (_aten.mm, _aten.bmm, _aten.linear) else args[2]
        block = _block(right)
        if block is None:
            return []
        if left.ndim == 3 and block.batch == 1:
            left = left.reshape(1, -1, left.shape[-1])
        self._add(one or two, block, left if left.ndim == 3 else left.unsqueeze(0))
        return [matrix]

    def _convolution(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
    ) -> list[Tensor]:
        name = self._name(weight)
        if name is None or transposed or not weight.is_contiguous() or self._name(x) is not None:
            return []
        block = Block(
            weight.storage_offset(), groups, len(weight) // groups, weight[0].numel(), False
        )
        size, dims = weight.shape[2:], weight.ndim - 2
        stride, padding, dilation = (
            list(v) * (dims if len(v) == 1 else 1) for v in (stride, padding, dilation)
        )
        if x.ndim == dims + 1:
            x = x.unsqueeze(0)
        x = F.pad(x, [p for each in reversed(padding) for p in (each, each)])
        for axis in range(dims):
            span = (size[axis] - 1) * dilation[axis] + 1
            x = x.unfold(2 + axis, span, stride[axis])[..., :: dilation[axis]]
        # (n, groups, channels, *places, *kernel) -> (groups, n places, channels kernel)
        x = x.unflatten(1, (groups, -1))
        order = [1, 0, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims)]
        x = x.permute(order)
        each = max(1, _PATCHES * x.shape[1] // max(1, x.numel()))
        for part in x.split(each, dim=1):
            self._add(name, block, part.reshape(groups, -1, block.inputs))
        return [weight]

    def _add(self, name: str, block: Block, inputs: Tensor) -> None:
        """Add what inputs ``(batch, n, inputs)`` say."""
        if self.mask is not None and inputs.shape[:2] == (1, len(self.mask)):
            inputs = inputs[:, self.mask]
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        found = self.grams.setdefault(name, {})
        gram = (inputs.mT @ inputs).double()
        found[block] = found[block].add_(gram) if block in found else gram


def _block(matrix: Tensor) -> Block | None:
    """Where the right factor ``(..., inputs, rows)`` of a product lies in a parameter's memory."""
    inputs, rows = matrix.shape[-2:]
    batch = 1
    if matrix.ndim == 3 and matrix.stride(0) != 0:
        batch = len(matrix)
        if batch > 1 and matrix.stride(0) != inputs * rows:
            return None
    down, across = matrix.stride()[-2:]
    if (down == 1 or inputs == 1) and (across == inputs or rows == 1):
        return Block(matrix.storage_offset(), batch, rows, inputs, False)
    if (across == 1 or rows == 1) and (down == rows or inputs == 1):
        return Block(matrix.storage_offset(), batch, rows, inputs, True)
    return None


def apart(blocks: Iterable[Block]) -> bool:
    """Whether no two blocks share memory."""
    ordered = sorted(blocks, key=lambda b: b.start)
    return all(one.stop <= other.start for one, other in zip(ordered, ordered[1:], strict=False))


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without the fused kernels that hide the matrices of attention."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
