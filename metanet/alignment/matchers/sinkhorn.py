"""Matching by gradient descent on doubly stochastic matrices."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import MetanetError
from ...evaluation import TaskLoss, repeatable
from ...tracing import is_integer
from .._elements import to_elements, to_transform
from .._moves import keys_of
from .._pieces import pieces_of
from .._registry import Match, Problem, matcher
from .._scores import earned
from .._soft import SoftTransform, harden, soft_arrange
from .._stock import Stock

_LOSSES = ("weights", "midpoint", "random")


@matcher("sinkhorn")
def match_by_sinkhorn(
    problem: Problem,
    *,
    on: str = "weights",
    steps: int = 300,
    rate: float = 0.1,
    temperature: float = 1.0,
    iterations: int = 20,
    gradient: str = "implicit",
    noise: float = 0.1,
    check: int = 20,
) -> Match:
    r"""Sinkhorn re-basin (Guerrero Peña et al. 2022, https://arxiv.org/abs/2212.12042), for any
    spec.

    Every permutation is relaxed to Sinkhorn's doubly stochastic matrix :math:`S_\tau(X)` of free
    numbers :math:`X`, and Adam lowers a loss of :math:`A` and :math:`S_\tau(X)(B)`. The
    permutations nearest to the matrices are looked at every few steps; the best are returned.

    Args:
        on: ``"weights"``: squared distance of the weights; ``"midpoint"``: the task's loss
            half-way; ``"random"``: the same at a random point between the networks at every step.
            The last two need ``model`` and ``data``.
        steps: of Adam.
        rate: of Adam.
        temperature: the larger, the softer.
        iterations: normalisations of rows and columns.
        gradient: ``"implicit"``, from the equations that the matrix solves, or ``"unrolled"``
            through the iterations.
        noise: of the free numbers, which start at the identity.
        check: steps between looks at the permutations.
    """
    if on not in _LOSSES or gradient not in ("implicit", "unrolled"):
        raise MetanetError(
            f"on={on!r}, gradient={gradient!r}: on is one of {', '.join(_LOSSES)}, "
            "gradient implicit or unrolled"
        )
    keys = keys_of(problem.spec)
    generator = torch.Generator().manual_seed(problem.seed)
    relaxed: _Weights | _Task
    if on == "weights":
        relaxed = _Weights(problem, keys)
    else:
        relaxed = _Task(problem, keys, on == "random", generator)
    identity = to_elements(problem.spec.identity(), keys)
    still = {g: e for g, e in identity.items() if g in relaxed.groups}
    free = {}
    for group, element in still.items():
        start = torch.eye(element.shape[-1]).expand(*element.shape, element.shape[-1])
        start = start + noise * torch.randn(start.shape, generator=generator)
        free[group] = start.to(problem.device).requires_grad_()
    project = implicit_sinkhorn if gradient == "implicit" else sinkhorn
    optimizer = torch.optim.Adam(free.values(), lr=rate)
    best = still
    objective = [relaxed.objective(still)]
    for step in range(1, steps + 1):
        matrices = {g: project(x, temperature, iterations) for g, x in free.items()}
        optimizer.zero_grad()
        relaxed.loss(matrices).backward()
        optimizer.step()
        if step % check != 0 and step != steps:
            continue
        soft = {g: sinkhorn(x.detach(), temperature, iterations) for g, x in free.items()}
        elements = harden(soft)
        value = relaxed.objective(elements)
        if value > objective[-1]:
            best = elements
            objective.append(value)
    return Match(to_transform({**identity, **best}, problem.spec), tuple(objective))


def sinkhorn(x: Tensor, temperature: float, iterations: int) -> Tensor:
    """Rows and columns of ``exp(x / temperature)`` normalised in turn, ``(..., n, n)``."""
    x = x / temperature
    for _ in range(iterations):
        x = x - x.logsumexp(-1, keepdim=True)
        x = x - x.logsumexp(-2, keepdim=True)
    return x.exp()


def implicit_sinkhorn(x: Tensor, temperature: float, iterations: int) -> Tensor:
    """The same with the gradient of its limit."""
    return _Implicit.apply(x, temperature, iterations)


class _Implicit(torch.autograd.Function):
    """Row and column sums stay as they are, which fixes how the matrix changes with ``x``
    (Eisenberger et al. 2022)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float, iterations: int) -> Tensor:
        """The matrix by iteration."""
        p = sinkhorn(x, temperature, iterations)
        ctx.save_for_backward(p)
        ctx.temperature = temperature
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the limit, in float64."""
        # With multipliers u of the rows and v of the columns, w = P * grad and sums r of rows, c of
        # columns, the equations of a change that leaves all sums as they are:
        #     diag(r) u + P v = w 1          the first gives u, put into the second
        #     P^T u + diag(c) v = w^T 1      (diag(c) - P^T diag(1/r) P) v = w^T 1 - P^T (w 1 / r)
        (saved,) = ctx.saved_tensors
        p = saved.double()
        g = grad.double()
        rows = p.sum(-1)
        columns = p.sum(-2)
        weighted = p * g
        right = weighted.sum(-2) - (p * (weighted.sum(-1) / rows)[..., None]).sum(-2)
        schur = torch.diag_embed(columns) - p.mT @ (p / rows[..., None])
        n = p.shape[-1]
        v = torch.zeros_like(right)  # a constant may be moved from v to u: the last is 0
        if n > 1:
            # where p is a permutation, nothing is left
            ridge = 1e-12 * torch.eye(n - 1, dtype=p.dtype, device=p.device)
            matrix = schur[..., :-1, :-1] + ridge
            v[..., :-1] = torch.linalg.solve(matrix, right[..., :-1, None])[..., 0]
        u = (weighted.sum(-1) - (p @ v[..., None])[..., 0]) / rows
        change = p * (g - u[..., None] - v[..., None, :])
        return (change / ctx.temperature).to(grad), None, None


class _Weights:
    """Distance of the weights, statistics left out."""

    def __init__(self, problem: Problem, keys: Mapping[str, tuple[str, ...]]) -> None:
        self.keys, pieces = keys, pieces_of(problem.spec)
        self.stock = Stock(problem.spec, pieces, *problem.pair, problem.device, 1 << 40)
        self.groups = {g for p in pieces for g in p.groups}
        squares = (float(self.stock.reference(n).square().sum()) for n in range(len(pieces)))
        self.unit = sum(squares) or 1.0

    def loss(self, matrices: Mapping[str, Tensor]) -> Tensor:
        """The squared distance, relative to the size of the weights that stay."""
        total = torch.zeros((), dtype=self.stock.dtype, device=self.stock.device)
        matrices = {g: m.to(self.stock.dtype) for g, m in matrices.items()}
        for n, piece in enumerate(self.stock.pieces):
            groups = [atom.group for atom in piece.atoms]
            moved = soft_arrange(self.stock.moving(n), groups, matrices, self.keys)
            total = total + (self.stock.reference(n) - moved).square().sum()
        return total / self.unit

    def objective(self, elements: Mapping[str, Tensor]) -> float:
        """The inner product of the weights."""
        pieces = range(len(self.stock.pieces))
        return sum(earned(self.stock, n, elements, self.keys) for n in pieces)


class _Task:
    """The task's loss between the networks."""

    def __init__(
        self,
        problem: Problem,
        keys: Mapping[str, tuple[str, ...]],
        anywhere: bool,
        generator: torch.Generator,
    ) -> None:
        missing = [n for n in ("model", "data") if getattr(problem, n) is None]
        if missing:
            raise MetanetError(
                f"matcher 'sinkhorn' on the task needs {', '.join(f'{n}=...' for n in missing)}"
            )
        self.data = repeatable(problem.batches, "matcher 'sinkhorn'")
        self.task = TaskLoss(problem.network, problem.loss, problem.device)
        self.a, self.b = (self.task.prepared(state) for state in problem.pair)
        self.move = SoftTransform(problem.spec, keys)
        self.groups = {g for pieces in self.move.pieces.values() for p in pieces for g in p.groups}
        self.anywhere, self.generator = anywhere, generator
        self.spec = problem.spec
        self._batches: Iterator[Any] = iter(())

    def _between(self, moved: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        return {
            n: t if is_integer(t.dtype) else torch.lerp(t, moved[n], share)
            for n, t in self.a.items()
        }

    def loss(self, matrices: Mapping[str, Tensor]) -> Tensor:
        """The task's loss of one batch, half-way or at a random point."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self.data)
            batch = next(self._batches)
        share = float(torch.rand((), generator=self.generator)) if self.anywhere else 0.5
        return self.task(self._between(self.move(self.b, matrices), share), batch)

    def objective(self, elements: Mapping[str, Tensor]) -> float:
        """Minus the task's loss half-way, on all data."""
        moved = to_transform(dict(elements), self.spec)(self.b)
        return -self.task.mean(self._between(moved, 0.5), self.data)
