"""The checks themselves."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..architecture import Architecture, trace
from ..graph import EdgeType, GraphStack
from ..symmetry import SymmetrySpec, Transform, leaves_of
from ..verification import Verification, redraw, verify


def assert_function_preserved(
    model: nn.Module,
    *inputs: Tensor,
    tolerance: float = 1e-10,
    unseen: Sequence[str] = (),
    seed: int = 0,
) -> Verification:
    """A random relabelling keeps the function; every illegal one changes it.

    Illegal ones move one axis of one tensor at a time.

    Args:
        model: traced here with ``inputs``.
        tolerance: of the relative output change in float64.
        unseen: tensors whose relabelling the function cannot see, besides those for which
            :func:`~metanet.verify` measures a reason.

    Raises:
        AssertionError: with the numbers.
    """
    __tracebackhide__ = True
    report = verify(model, trace(model, *inputs).spec, *inputs, seed=seed)
    assert report.change < tolerance, (
        f"a legal relabelling changed the output by {report.change:.1e} of its spread"
    )
    assert report.moved > 0, "the relabelling moved nothing: there is nothing to check"
    blind = [f"{name} axis {axis}" for name, axis in report.unexplained if name not in unseen]
    assert not blind, f"the output does not show an illegal relabelling of {', '.join(blind)}"
    return report


def illegal(t: Transform, state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Relabel one tensor (under all its names) and nothing else."""
    first = t.spec.tensors[name].tied_to or name
    names = [
        n for n, known in t.spec.tensors.items() if n in state and (known.tied_to or n) == first
    ]
    return {**state, **dict.fromkeys(names, t.apply(name, state[name]))}


def movable(spec: SymmetrySpec) -> tuple[str, ...]:
    """Names of the tensors that some transform moves."""
    return tuple(
        n for n, t in spec.tensors.items() if any(True for a in t.axes for _ in leaves_of(a))
    )


def assert_invariant(
    metanetwork: Callable[[Sequence[GraphStack]], Tensor], architecture: Architecture, *,
    networks: int = 4, tolerance: float = 1e-10, sensitive: bool = True, seed: int = 0,
) -> float:  # fmt: skip
    """An invariant metanetwork answers alike for a network and its relabellings.

    And it notices illegal ones.

    Args:
        metanetwork: called with stacks in float64.
        architecture: of random networks, drawn here.
        networks: how many; their answers' spread is the unit of all errors.
        sensitive: also check that relabelling single tensors is noticed (for at least nine in ten
            of them).

    Returns:
        The largest relative change under legal relabellings.

    Raises:
        AssertionError: with the numbers.
    """
    __tracebackhide__ = True
    generator = torch.Generator().manual_seed(seed)
    states = random_states(architecture, networks, generator)

    def answer(some: Sequence[Mapping[str, Tensor]]) -> Tensor:
        stacked = {k: torch.stack([s[k] for s in some]) for k in some[0]}
        with torch.no_grad():
            return metanetwork([architecture.template.stack(stacked)]).double()

    want = answer(states)
    spread = (want - want.mean(0)).abs().max()
    assert spread > 0, "the metanetwork gives all networks the same answer"
    transforms = [architecture.spec.sample(generator) for _ in states]
    legal = answer([t(s) for t, s in zip(transforms, states, strict=True)])
    change = float((legal - want).abs().max() / spread)
    assert change < tolerance, (
        f"a legal relabelling changed the answer by {change:.1e} of the spread"
    )
    if sensitive:
        blind, names = [], [n for n in movable(architecture.spec) if n in states[0]]
        for name in names:
            moved = answer([illegal(t, s, name) for t, s in zip(transforms, states, strict=True)])
            if (moved - want).abs().max() / spread < 1e3 * tolerance:
                blind.append(name)
        total = len(names)
        assert len(blind) <= total // 10, (
            f"illegal relabellings of {len(blind)} of {total} tensors go unnoticed: {blind}"
        )
    return change


def random_states(
    architecture: Architecture, networks: int, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """State dicts of random networks in float64 (complex128), nothing left at an initial value."""
    scales = {n for b in architecture.template.blocks if b.type == EdgeType.SCALE for n in b.names}
    weights = {n: t for n, t in architecture.spec.tensors.items() if not t.integer}
    wide = {True: torch.complex128, False: torch.float64}
    usual = {
        n: torch.full(t.shape, float(n in scales), dtype=wide[t.is_complex])
        for n, t in weights.items()
    }
    states = [redraw(usual, generator) for _ in range(networks)]
    tied = {n: t.tied_to for n, t in weights.items() if t.tied_to}
    return [{n: state[tied.get(n, n)] for n in state} for state in states]
