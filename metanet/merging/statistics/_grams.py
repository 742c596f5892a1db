"""What the linear maps of a network are given: Gram matrices of the inputs of every matrix in its
parameters.

Every operation of a pass is seen, whatever module it stands in. The rules of the derivation say
which of its operands is contracted with which, and along which axes; a parameter is known by its
memory, of which views and slices share a part::

    x @ W.T + b   ->   Contraction(data=x, weight=W.T)   ->   W by its memory, gram of x
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ...evaluation import Runner, entries
from ...symmetry import Contraction, SeenCall, seen_call
from ...tracing import tensors_in
from .._data import batch_size
from ._blocks import Block, block_of

_PATCHES = 2**25  # values of unfolded images at once: 128 MiB

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
            watch.mask = _mask_of(batch, run.device)
            samples += batch_size(batch)
            with watch:
                run(network, batch)
    means: Grams = {}
    for name, blocks in watch.grams.items():
        means[name] = {block: (total / samples).cpu() for block, total in blocks.items()}
    return means, watch.other


def _mask_of(batch: Any, device: torch.device) -> Tensor | None:
    """Whether each token of a batch counts, ``(batch tokens,)``; ``None`` if all do."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        return None
    return mask.bool().flatten().to(device)


class _Watch(TorchDispatchMode):
    """Sees every operation of a pass, and which parameters it reads.

    Attributes:
        grams: sums of outer products, by parameter and block.
        other: parameters that are used otherwise than as matrices.
        mask: of the tokens of the batch that count.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.grams: Grams = {}
        self.other: set[str] = set()
        self.mask: Tensor | None = None
        self._names: dict[int, str] = {}  # by memory
        tensors, first = entries(network)
        parameters = {id(parameter) for parameter in network.parameters()}
        for name, tensor in tensors.items():
            if first[name] == name and id(tensor) in parameters and tensor.numel():
                self._enter(name, tensor)

    def _enter(self, name: str, parameter: Tensor) -> None:
        """Know a parameter by its memory, which it must have to itself."""
        alone = parameter.untyped_storage().nbytes() == parameter.numel() * parameter.itemsize
        if not alone or not parameter.is_contiguous():
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        self._names[parameter.untyped_storage().data_ptr()] = name
        if parameter.is_complex():
            self.other.add(name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        reading = [tensor for tensor in tensors_in((args, kwargs)) if self._name(tensor)]
        if reading:
            matrix = self._taken_in(seen_call(func, args, kwargs, out))
            memory = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((out,))}
            for tensor in reading:
                name = self._name(tensor)
                is_view = memory <= {tensor.untyped_storage().data_ptr()}  # or a shape and the like
                if name is not None and not is_view and tensor is not matrix:
                    self.other.add(name)
        return out

    def _name(self, tensor: Tensor) -> str | None:
        """The parameter that a tensor is, or is a part of."""
        return self._names.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None

    def _taken_in(self, seen: SeenCall) -> Tensor | None:
        """Take in what an operation multiplies by a parameter; returns that, or part of one."""
        for flow in seen.flow:
            if not isinstance(flow, Contraction):
                continue
            data = seen.tensor(flow.data)
            weight = seen.tensor(flow.weight)
            name = self._name(weight)
            if name is None or self._name(data) is not None or data.is_complex():
                continue
            take_in = self._product if flow.convolution is None else self._convolution
            return weight if take_in(name, flow, data, weight) else None
        return None

    def _product(self, name: str, flow: Contraction, data: Tensor, weight: Tensor) -> bool:
        """Take in the inputs of a matrix product; whether the weight is a block of a parameter.

        ``W x`` is ``x' W'`` transposed: inputs come last, the weight is the right factor.
        """
        if data.ndim < 2:
            return False
        inputs = data.movedim(flow.data_axis, -1)
        block = block_of(weight.mT if flow.weight_in > flow.weight_out else weight)
        if block is None:
            return False
        if inputs.ndim != 3 or block.batch == 1:
            inputs = inputs.reshape(1, -1, inputs.shape[-1])
        self._add(name, block, inputs)
        return True

    def _convolution(self, name: str, flow: Contraction, data: Tensor, weight: Tensor) -> bool:
        """Take in the patches of a convolution; whether it is of a kind that is known."""
        window = flow.convolution
        if window is None or window.transposed or not weight.is_contiguous():
            return False
        rows = len(weight) // flow.groups
        start = int(weight.storage_offset())
        block = Block(start, flow.groups, rows, weight[0].numel(), transposed=False)
        places = weight.ndim - 2
        images = data if data.ndim == weight.ndim else data.unsqueeze(0)
        images = F.pad(images, _both_sides(window.padding))
        for axis in range(places):
            step = window.dilation[axis]
            span = (weight.shape[2 + axis] - 1) * step + 1
            images = images.unfold(2 + axis, span, window.stride[axis])[..., ::step]
        # (n, groups, channels, *places, *kernel) -> (groups, n, *places, channels, *kernel)
        images = images.unflatten(1, (flow.groups, -1))
        kernel = range(3 + places, 3 + 2 * places)
        images = images.permute(1, 0, *range(3, 3 + places), 2, *kernel)
        at_once = max(1, _PATCHES * images.shape[1] // max(1, images.numel()))
        for some in images.split(at_once, dim=1):
            self._add(name, block, some.reshape(flow.groups, -1, block.inputs))
        return True

    def _add(self, name: str, block: Block, inputs: Tensor) -> None:
        """Add what inputs ``(batch, n, inputs)`` say."""
        if self.mask is not None and inputs.shape[:2] == (1, len(self.mask)):
            inputs = inputs[:, self.mask]
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        gram = (inputs.mT @ inputs).double()
        blocks = self.grams.setdefault(name, {})
        blocks[block] = blocks[block].add_(gram) if block in blocks else gram


def _both_sides(padding: Sequence[int]) -> list[int]:
    """As ``torch.nn.functional.pad`` takes it: the last axis first, both sides of each."""
    return [width for axis in reversed(padding) for width in (axis, axis)]


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without the fused kernels that hide the matrices of attention."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
