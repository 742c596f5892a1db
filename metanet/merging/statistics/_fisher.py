"""The diagonal of the Fisher information: how much a network's answers depend on each of its
parameters."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...errors import MetanetError
from ...evaluation import (
    Runner,
    batch_inputs,
    cut,
    entries,
    find_loss,
    load,
    target_of,
    to_device,
    working_copy,
)
from ...progress import Progress, track
from .._data import batch_size, data_of, first_samples
from .._part import Problem
from ._likelihood import Likelihood

_CHUNK = 2**25  # values of per-sample gradients at once: 128 MiB
# Samples at once for which vectorising pays: ResNet18 is 4 times faster one by one than in twos.
_LEAST = 8


def fishers(
    problem: Problem, given: Iterable[tuple[int | None, str]], *, samples: int | None, labels: str
) -> list[dict[str, Tensor]]:
    r"""The diagonal Fisher information of networks, by the first name of every parameter.

    .. math::
        F_i = \frac{1}{n} \sum_{x} E_{y \sim p(y | x)} \left( \frac{\partial \log p(y | x)}{\partial
        w_i} \right)^2

    Every square is of the gradient of one sample, never of a batch. In memory: one module,
    gradients of one sample (of small networks, of as many as fit in 128 MiB), and of each result
    one float32 for every parameter.

    Args:
        problem: with model and data.
        given: networks: the number of a model, ``None`` for the base, and what to call it.
        samples: at most so many of the data; ``None``: all.
        labels: ``"expected"`` over the network's own, ``"sampled"`` from them, ``"empirical"``: the
            squared gradient of the loss at the data's targets, or ``"auto"``: expected for up to
            100 scores per sample, else sampled.

    Raises:
        MetanetError: the network can't run the data, a target is missing or of an unknown kind, or
            the outputs do not depend on the parameters.
    """
    network, out = working_copy(problem.network, problem.device), []
    for number, who in given:
        load(network, problem.origin if number is None else problem.models[number])
        data = problem.batches if number is None else data_of(problem, number)
        # The same random numbers for every network: equal ones get equal Fishers.
        estimate = _Estimate(network, problem, labels, torch.Generator().manual_seed(problem.seed))
        bar: Progress[Any] = track(what=f"Fisher of {who}", unit="samples", show=problem.progress)
        with bar:
            for batch in first_samples(data, samples):
                estimate.add(batch)
                bar.update(batch_size(batch))
        out.append(estimate.mean(who))
    return out


class _Estimate:
    """A running mean of squared gradients."""

    def __init__(
        self, network: nn.Module, problem: Problem, labels: str, generator: torch.Generator
    ) -> None:
        self.network, self.labels, self.generator = network, labels, generator
        self.loss, self.run = find_loss(problem.loss), Runner(problem.device)
        tensors, first = entries(network)
        parameters = {
            id(p) for p in network.parameters() if p.is_floating_point() or p.is_complex()
        }
        self.parameters = {
            n: t for n, t in tensors.items() if first[n] == n and id(t) in parameters
        }
        inside = {id(p): n for n, p in network.named_parameters()}
        self.inside = {
            n: inside[id(t)] for n, t in self.parameters.items()
        }  # a module may store them by other names
        self.sums = {
            n: torch.zeros_like(torch.view_as_real(t) if t.is_complex() else t).detach()
            for n, t in self.parameters.items()
        }
        self.chunk = max(1, _CHUNK // max(1, sum(t.numel() for t in self.parameters.values())))
        self.count = 0
        self.likelihood: Likelihood | None = None

    def add(self, batch: Any) -> None:
        """Take in the samples of a batch."""
        batch = to_device(dict(batch) if isinstance(batch, Mapping) else batch, self.run.device)
        size = batch_size(batch)
        beside = self._beside(batch)
        self.count += size
        if self.chunk >= _LEAST and size > 1:
            try:
                squares = self._all_at_once(batch, size, beside)
            except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError):
                # not every network can be vectorised over samples; one by one says what is wrong
                self.chunk = 1
            else:
                self._take(squares)
                return
        for k in range(size):
            self._take(
                self._alone(
                    cut(batch, size, k, k + 1),
                    *(None if b is None else b[k : k + 1] for b in beside),
                )
            )

    @torch.no_grad()
    def _beside(self, batch: Any) -> tuple[Tensor | None, Tensor | None]:
        """Where the batch's scores count, and the noise to sample labels by."""
        if self.likelihood is not None and self.likelihood.kind == "loss":
            return None, None
        outputs, target = self.run(self.network, batch), target_of(batch)
        if self.likelihood is None:
            self.likelihood = Likelihood.of(outputs, target, self.labels, self.loss)
        counted = self.likelihood.counted(outputs, target)
        noise = self.likelihood.noise(self.likelihood.scores(outputs, target), self.generator)
        return counted, noise

    @property
    def _likelihood(self) -> Likelihood:
        """What the first batch has told."""
        if self.likelihood is None:
            raise MetanetError("no batch has come")
        return self.likelihood

    def mean(self, who: str) -> dict[str, Tensor]:
        """In float32 on the CPU, float64 of float64 parameters."""
        out = {n: (s / self.count).to("cpu") for n, s in self.sums.items()}
        total = mean_of(out)
        if not 0 < total < float("inf"):
            raise MetanetError(
                f"the Fisher information of {who} is "
                f"{'zero' if total == 0 else 'infinite or NaN'}: on this data its answers "
                f"{'do not depend on its parameters' if total == 0 else 'are not finite'}"
            )
        return out

    def _take(self, squares: Mapping[str, Tensor]) -> None:
        for name, square in squares.items():
            self.sums[name] += square

    def _all_at_once(
        self, batch: Any, size: int, beside: tuple[Tensor | None, ...]
    ) -> dict[str, Tensor]:
        """The sum of squared gradients, vectorised over samples."""
        leaves, form = tree_flatten((batch, *beside))
        varying = {k: x for k, x in enumerate(leaves) if _is_per_sample(x, size)}
        likelihood = self._likelihood

        def one(parameters: dict[str, Tensor], sample: list[Tensor]) -> dict[str, Tensor]:
            whole = list(leaves)
            for place, value in zip(varying, sample, strict=True):
                whole[place] = value.unsqueeze(0)
            alone, counted, noise = tree_unflatten(whole, form)
            args, kwargs = batch_inputs(alone)

            def run(parameters: dict[str, Tensor]) -> Tensor:
                outputs = functional_call(self.network, parameters, args, kwargs)
                return likelihood.scores(outputs, target_of(alone))

            scores, pull = vjp(run, parameters)  # type: ignore[misc]  # two without has_aux
            squares: dict[str, Tensor] = {}
            for direction in likelihood.directions(scores.detach(), counted, noise):
                gradients = pull(direction)[0]
                for name, inner in self.inside.items():
                    _add(squares, name, gradients[inner])
            return squares

        parameters = {self.inside[n]: p.detach() for n, p in self.parameters.items()}
        chunks: list[dict[str, Tensor]] = []
        for start in range(0, size, self.chunk):
            part = [column[start : start + self.chunk] for column in varying.values()]
            squares = vmap(one, in_dims=(None, 0))(parameters, part)
            chunks.append({name: square.sum(0) for name, square in squares.items()})
        first, *others = chunks
        return {name: sum((c[name] for c in others), start=first[name]) for name in first}

    def _alone(
        self, sample: Any, counted: Tensor | None, noise: Tensor | None
    ) -> dict[str, Tensor]:
        """The squared gradients of one sample."""
        parameters = list(self.parameters.values())
        for parameter in parameters:
            parameter.requires_grad_(True)
        try:
            scores = self._likelihood.scores(self.run(self.network, sample), target_of(sample))
            squares: dict[str, Tensor] = {}
            if not scores.requires_grad:
                return squares
            for direction in self._likelihood.directions(scores.detach(), counted, noise):
                gradients = torch.autograd.grad(
                    scores, parameters, direction, retain_graph=True, allow_unused=True
                )
                for name, gradient in zip(self.parameters, gradients, strict=True):
                    if gradient is not None:
                        _add(squares, name, gradient)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
        return squares


def _is_per_sample(value: Any, size: int) -> bool:
    """Whether a tensor has one entry for each sample."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == size


def _add(squares: dict[str, Tensor], name: str, gradient: Tensor) -> None:
    square = _square(gradient)
    squares[name] = squares[name] + square if name in squares else square


def _square(gradient: Tensor) -> Tensor:
    """Of real and imaginary parts each."""
    return (torch.view_as_real(gradient) if gradient.is_complex() else gradient).square()


def mean_of(fisher: Mapping[str, Tensor]) -> float:
    """The mean over all parameters, summed in float64."""
    return sum(float(f.sum(dtype=torch.float64)) for f in fisher.values()) / sum(
        f.numel() for f in fisher.values()
    )
