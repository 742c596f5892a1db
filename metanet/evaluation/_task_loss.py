"""The loss of a network with given weights, as matchers differentiate it."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..tracing import is_integer
from ._fitting import entries
from ._losses import Loss, default_loss
from ._running import Runner, asked, measure

_WRITTEN = ("running_mean", "running_var", "num_batches_tracked")  # by BatchNorm as it runs


class TaskLoss:
    """The loss of weights that stand in no module, differentiable with respect to them.

    Runs a copy of a module in eval mode, save that BatchNorm normalises by the batch: between two
    networks the averaged running statistics are those of neither, nor of what lies between. Batches
    are read and counted as :func:`measure` does.

    >>> import torch
    >>> task = TaskLoss(torch.nn.Linear(1, 1, bias=False), None, torch.device("cpu"))
    >>> state = task.prepared({"weight": torch.tensor([[3.0]])})
    >>> task.mean(state, [(torch.ones(2, 1), torch.zeros(2, 1))])
    9.0

    Args:
        model: the module.
        loss: of outputs and target; by the kind of target when left out.
        device: where to run.
    """

    def __init__(self, model: nn.Module, loss: Loss | None, device: torch.device) -> None:
        self.model = copy.deepcopy(model).to(device).eval().requires_grad_(False)
        for module in self.model.modules():
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.train()
        self.loss, self.device = loss or default_loss, device
        tensors, self._first = entries(self.model)
        self._dtypes = {n: t.dtype for n, t in tensors.items() if not is_integer(t.dtype)}

    def prepared(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint on the device, in the module's dtypes, with one name for what is tied."""
        prepared: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if name in self._first:
                dtype = self._dtypes.get(name, tensor.dtype)
                prepared.setdefault(self._first[name], tensor.detach().to(self.device, dtype))
        return prepared

    def __call__(self, state: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The loss on one batch, with what :meth:`prepared` gave.

        Raises:
            MetanetError: the batch has another form, or the network can't run it.
        """
        outputs = self._runner(state)(self.model, batch)
        return self.loss(outputs, asked(outputs, batch, self.device))

    def mean(self, state: Mapping[str, Tensor], data: Iterable[Any]) -> float:
        """The loss on all batches, see :func:`measure`."""
        return measure(self.model, data, self.loss, [], self._runner(state))[0]["loss"]

    def _runner(self, state: Mapping[str, Tensor]) -> Runner:
        """Runs the module with these weights; what BatchNorm writes goes into copies of its own."""
        tensors = dict(state)
        for name, tensor in state.items():
            if name.rpartition(".")[2] in _WRITTEN:
                tensors[name] = tensor.detach().clone()
        return Runner(self.device, tensors)
