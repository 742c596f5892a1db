"""Train many networks of one architecture at once.

The networks are stacked, ``vmap`` turns one forward pass into one pass of all of them (its
convolutions become grouped convolutions, its linear layers batched products), and plain autograd
runs backwards through that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ._errors import ZooError

Tensors = dict[str, Tensor]
"""Tensors by name, stacked: one row per network."""

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
# images at once: the activations of some hundred networks then stay near the cache
EVALUATION_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How each of N networks is trained. All randomness of network ``i`` comes from
    ``generators[i]``."""

    learning_rate: Float[Tensor, " n"]
    weight_decay: Float[Tensor, " n"]
    epochs: Int[Tensor, " n"]
    labels: Int[Tensor, "n samples"]  # as this network sees them, wrong ones included
    subsets: Sequence[Int[Tensor, " _"]]  # which samples it is trained on
    generators: Sequence[torch.Generator]  # order of the mini-batches
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """N trained networks. ``train_loss`` and ``test_accuracy`` are per epoch, NaN after a network's
    last one."""

    state: dict[str, Tensor]
    train_loss: Float[Tensor, "n epochs"]
    test_accuracy: Float[Tensor, "n epochs"]
    train_accuracy: Float[Tensor, " n"]


def batch_indices(
    subset: Tensor, steps: int, batch_size: int, generator: torch.Generator
) -> Int[Tensor, "steps b"]:
    """The mini-batches of one epoch: the subset in a fresh order, repeated until the epoch is full.

    An epoch is a fixed number of steps for everybody, so that networks with different training
    fractions march in step; one with a tenth of the data passes over it ten times an epoch.
    """
    order = subset[torch.randperm(len(subset), generator=generator)]
    repeats = -(-steps * batch_size // len(order))
    return order.repeat(repeats)[: steps * batch_size].view(steps, batch_size)


def train_networks(
    modules: Sequence[nn.Module],
    plan: Plan,
    images: Float[Tensor, "samples ..."],
    test_images: Float[Tensor, "tests ..."],
    test_labels: Int[Tensor, " tests"],
    tick: Callable[[int], None] = lambda network_epochs: None,
) -> Trained:
    """Train stacked copies of ``modules`` (left as they are) with Adam and cross-entropy.

    The same as training each one alone with ``torch.optim.Adam(lr, weight_decay)``, up to rounding.
    ``tick`` is called after every epoch with the number of networks that took part in it.
    """
    # Networks are stacked by falling number of epochs: those still being trained are then a prefix
    # of every tensor, and a slice, which is free, both freezes the others and saves their
    # computation.
    order = torch.argsort(plan.epochs, descending=True, stable=True)
    epochs = plan.epochs[order]
    stack = _Stack([modules[i] for i in order.tolist()])
    lr, decay, labels = (t[order] for t in (plan.learning_rate, plan.weight_decay, plan.labels))
    subsets = [plan.subsets[i] for i in order.tolist()]
    generators = [plan.generators[i] for i in order.tolist()]
    lr, decay = lr.to(stack.flat.dtype)[:, None], decay.to(stack.flat.dtype)[:, None]

    steps = len(images) // plan.batch_size
    last = int(epochs[0])
    train_loss = torch.full((len(modules), last), torch.nan)
    test_accuracy = torch.full((len(modules), last), torch.nan)
    step = 0
    for epoch in range(last):
        live = int((epochs > epoch).sum())
        batches = torch.stack(
            [
                batch_indices(s, steps, plan.batch_size, g)
                for s, g in zip(subsets[:live], generators[:live], strict=True)
            ]
        )
        total = torch.zeros(live, dtype=stack.flat.dtype)
        parameters, buffers = stack.views(live, grad=True)
        for rows in batches.unbind(1):  # (live, b)
            step += 1
            losses = stack.losses(parameters, buffers, images[rows], labels[:live].gather(1, rows))
            gradients = torch.autograd.grad(losses.sum(), list(parameters.values()))
            stack.adam(gradients, step, lr[:live], decay[:live])
            total += losses.detach()
        train_loss[:live, epoch] = (total / steps).float()
        predicted = stack.predict(live, test_images)
        test_accuracy[:live, epoch] = (predicted == test_labels).float().mean(1)
        tick(live)

    correct = stack.predict(len(modules), images) == labels
    train_accuracy = torch.stack(
        [row[subset].float().mean() for row, subset in zip(correct, subsets, strict=True)]
    )
    back = torch.argsort(order)
    return Trained(
        state={name: tensor[back] for name, tensor in stack.state().items()},
        train_loss=train_loss[back],
        test_accuracy=test_accuracy[back],
        train_accuracy=train_accuracy[back],
    )


class _Stack:
    """N networks of one architecture: one row of ``flat`` each, plus stacked buffers and Adam's
    moments.

    Adam is written out because torch's takes one learning rate for all; over one flat matrix it is
    five operations a step, whatever the number of layers.

    Raises:
        ZooError: a parameter is complex, which would make all of them complex.
    """

    def __init__(self, modules: Sequence[nn.Module]):
        self.module = modules[0]
        self.names = list(self.module.state_dict())
        parameters, buffers = stack_module_state(list(modules))
        if odd := [name for name, tensor in parameters.items() if tensor.is_complex()]:
            raise ZooError(
                f"{type(self.module).__name__} has complex parameters ({', '.join(odd[:3])}): zoos "
                "are trained in real numbers; store them as pairs, torch.view_as_real(...), and "
                "read them by torch.view_as_complex"
            )
        self.shapes = {name: tensor.shape[1:] for name, tensor in parameters.items()}
        self.flat = torch.cat([tensor.detach().flatten(1) for tensor in parameters.values()], 1)
        self.buffers = {name: tensor.clone() for name, tensor in buffers.items()}
        self.convolutional = any(isinstance(module, nn.Conv2d) for module in self.module.modules())
        self.mean, self.square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)

        def loss(parameters: Tensors, buffers: Tensors, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self.module, (parameters, buffers), (x,)), y)

        def classes(parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
            return functional_call(self.module, (parameters, buffers), (x,)).argmax(-1)

        # vmap inside, autograd outside: the networks do not meet, so the gradient of the sum of
        # their losses holds every network's own gradient; 1.1 to 1.4 times as fast here as
        # vmap(grad), whose convolutions run apart.
        self._losses = vmap(loss, in_dims=(0, 0, 0, 0))
        self._classes = vmap(classes, in_dims=(0, 0, None))

    def views(self, live: int, grad: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers of the first ``live`` networks, sharing memory with this stack."""
        pieces = self.flat[:live].split([shape.numel() for shape in self.shapes.values()], 1)
        parameters = {
            name: piece.unflatten(1, shape).detach().requires_grad_(grad) if shape else piece[:, 0]
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }
        return parameters, {name: tensor[:live] for name, tensor in self.buffers.items()}

    def losses(
        self,
        parameters: Tensors,
        buffers: Tensors,
        x: Float[Tensor, "live b ..."],
        y: Int[Tensor, "live b"],
    ) -> Float[Tensor, " live"]:
        if self.convolutional:
            # In memory: batch, height, width, network, channel. That is channels-last for the
            # grouped convolution over all networks, and whatever follows keeps it: the same cost
            # for any number of channels, 3 to 5 times less than the usual layout where that number
            # is no multiple of eight.
            x = x.permute(1, 3, 4, 0, 2).contiguous().permute(3, 0, 4, 1, 2)
        self.module.train()
        return self._losses(parameters, buffers, x, y)

    @torch.no_grad()
    def predict(self, live: int, x: Tensor) -> Int[Tensor, "live samples"]:
        self.module.eval()
        state = self.views(live)
        x = x.contiguous(memory_format=torch.channels_last) if self.convolutional else x
        return torch.cat([self._classes(*state, part) for part in x.split(EVALUATION_BATCH)], 1)

    @torch.no_grad()
    def adam(self, gradients: Sequence[Tensor], step: int, lr: Tensor, decay: Tensor) -> None:
        live = len(lr)
        weights, mean, square = self.flat[:live], self.mean[:live], self.square[:live]
        gradient = torch.cat([g.flatten(1) for g in gradients], 1).addcmul_(weights, decay)
        mean.lerp_(gradient, 1 - BETA1)
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        scale = square.sqrt().div_((1 - BETA2**step) ** 0.5).add_(EPSILON)
        weights.addcdiv_(mean * (lr / (1 - BETA1**step)), scale, value=-1)

    def state(self) -> dict[str, Tensor]:
        parameters, buffers = self.views(len(self.flat))
        return {
            name: parameters[name] if name in parameters else buffers[name] for name in self.names
        }


def bytes_per_network(module: nn.Module, batch: Float[Tensor, "b ..."]) -> int:
    """Memory that one more network takes while it is trained: its state four times, and its
    activations twice."""
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        module(batch)
    state = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    return 4 * state + 2 * saved
