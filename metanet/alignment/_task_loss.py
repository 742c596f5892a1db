"""The loss of a network with given weights on a batch, as matchers differentiate it."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import MetanetError
from ..evaluation import batch_inputs, default_loss
from ..tracing import is_integer, tensors_in


class TaskLoss:
    """Runs a copy of a module in eval mode, save that BatchNorm normalises by the batch.

    Between two networks the averaged running statistics are those of neither, nor of what lies
    between.

    Args:
        model: the module.
        loss: of outputs and target; by the kind of target when left out.
        device: where to run.
    """

    def __init__(
        self, model: nn.Module, loss: Callable[[Any, Any], Tensor] | None, device: torch.device
    ) -> None:  # fmt: skip
        self.model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        for module in self.model.modules():
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.train()
        self.loss, self.device = loss or default_loss, device
        entries = self.model.state_dict(keep_vars=True)
        first: dict[int, str] = {}
        self._first = {n: first.setdefault(id(t), n) for n, t in entries.items()}
        self._dtypes = {n: t.dtype for n, t in entries.items() if not is_integer(t.dtype)}

    def prepared(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint on the device, in the module's dtypes, with one name for what is tied."""
        out = {}
        for name, tensor in state.items():
            if name in self._first:
                dtype = self._dtypes.get(name, tensor.dtype)
                out.setdefault(self._first[name], tensor.detach().to(self.device, dtype))
        return out

    def __call__(self, state: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The loss on one batch, with what :meth:`prepared` gave."""
        args, kwargs = batch_inputs(batch)
        kwargs = {k: _on(x, self.device) for k, x in kwargs.items()}
        target = (
            None if isinstance(batch, Mapping) or len(batch) < 2 else _on(batch[1], self.device)
        )
        # BatchNorm writes into its statistics
        own = {
            n: t.detach().clone() if n.rpartition(".")[2] in _WRITTEN else t
            for n, t in state.items()
        }
        return self.loss(functional_call(self.model, own, _on(args, self.device), kwargs), target)

    def mean(self, state: Mapping[str, Tensor], data: Iterable[Any]) -> float:
        """The loss on all batches, each counted by its size."""
        total = count = 0.0
        with torch.no_grad():
            for batch in data:
                size = len(next(tensors_in(batch)))
                total += size * float(self(state, batch))
                count += size
        return total / count


_WRITTEN = ("running_mean", "running_var", "num_batches_tracked")


def repeatable(data: Iterable[Any], who: str) -> Iterable[Any]:
    """Data that can be read more than once and is not empty.

    Raises:
        MetanetError: it is an iterator, or yields nothing.
    """
    if isinstance(data, Iterator):
        raise MetanetError(
            f"matcher {who!r} reads the data several times: give a list or a DataLoader, no iterator"
        )
    if next(iter(data), None) is None:
        raise MetanetError("the data yielded no batch: is the folder empty?")
    return data


def _on(x: Any, device: torch.device) -> Any:
    if isinstance(x, Tensor):
        return x.to(device)
    return type(x)(_on(y, device) for y in x) if isinstance(x, (list, tuple)) else x
