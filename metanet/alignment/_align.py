"""The one entrance to all matchers."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import MetanetError, UntoldNeuronsWarning
from ..symmetry import SymmetrySpec, Transform
from ._alignment import Alignment
from ._checks import checked
from ._registry import Match, Problem, find_matcher
from ._tables import holding
from ._untold import untold_groups

Weights = nn.Module | Mapping[str, Tensor]
Loss = Callable[[Any, Any], Tensor]


@overload
def align(
    b: Weights, to: Weights | None = None, *, arch: Architecture | SymmetrySpec, method: str = "weight", seed: int = 0,
    model: nn.Module | None = None, data: Iterable[Any] | None = None, loss: Loss | None = None,
    device: str | torch.device | None = None, **options: Any,
) -> Alignment: ...  # fmt: skip
@overload
def align(
    b: Sequence[Weights], to: Weights | None = None, *, arch: Architecture | SymmetrySpec, method: str = "weight",
    seed: int = 0, model: nn.Module | None = None, data: Iterable[Any] | None = None, loss: Loss | None = None,
    device: str | torch.device | None = None, **options: Any,
) -> list[Alignment]: ...  # fmt: skip
def align(
    b: Weights | Sequence[Weights], to: Weights | None = None, *, arch: Architecture | SymmetrySpec,
    method: str = "weight", seed: int = 0, model: nn.Module | None = None, data: Iterable[Any] | None = None,
    loss: Loss | None = None, device: str | torch.device | None = None, **options: Any,
) -> Alignment | list[Alignment]:  # fmt: skip
    """Relabel the neurons of one or more networks so that they fit another's.

    >>> import metanet, torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> arch, a = metanet.trace(net, torch.randn(4, 3)), net.state_dict()
    >>> b = arch.spec.sample()(a)                       # the same network with its neurons in another order
    >>> moved = metanet.align(b, to=a, arch=arch)(b)
    >>> all(torch.equal(moved[name], a[name]) for name in a)
    True

    Args:
        b: a module or state dict (a lazy checkpoint too), or a list of these.
        to: the network that stays. ``None`` only for matchers of many networks: then all of them
            move.
        arch: what :func:`metanet.trace` returned; its spec is enough for matchers that only read
            weights.
        method: name of a matcher, see :data:`metanet.alignment.MATCHERS`.
        seed: of everything random.
        model: the module, where the matcher runs it.
        data: batches ``(inputs, target)`` or dicts of keyword inputs, where the matcher reads them.
        loss: ``loss(outputs, target)``, where the matcher needs it.
        device: where to compute; the CPU when left out.
        options: of the matcher.

    Returns:
        For a list one alignment each; ``al(b)`` is ``b`` moved.

    Raises:
        MetanetError: no such matcher or option, or something that it needs is missing.
        CheckpointError: a checkpoint is of another architecture or other shapes, quantised, an
            adapter alone, or has NaN or infinite values.

    Warns:
        UserWarning: groups of which nothing could be told and that stay as they are, by name.
    """
    found = find_matcher(method, options)
    spec = arch if isinstance(arch, SymmetrySpec) else arch.spec
    many = not isinstance(b, (nn.Module, Mapping))
    given = list(b) if many else [b]
    _check_call(found, given, to, spec, {"model": model, "data": data, "loss": loss}, arch)
    reference = None if to is None else checked(spec, to, "the checkpoint to align to")
    names = (
        [f"checkpoint {n + 1} of {len(given)}" for n in range(len(given))]
        if many
        else ["the checkpoint to be aligned"]
    )
    moving = [checked(spec, each, who) for each, who in zip(given, names, strict=True)]
    problem = Problem(
        spec, reference, moving, seed, torch.device(device or "cpu"),
        arch if isinstance(arch, Architecture) else None, model, data, loss,
    )  # fmt: skip
    used = {**found.options, **options}
    out = []
    for number, each in enumerate(
        [problem] if found.many else [_one(problem, n) for n in range(len(moving))]
    ):
        begin = time.perf_counter()
        each, held = holding(each)
        matches = found.function(each, **options)
        seconds = time.perf_counter() - begin
        for place, match in enumerate(matches if found.many else [matches]):
            if held:
                match = replace(match, transform=Transform(spec, match.transform.elements))
            out.append(
                _alignment(
                    match,
                    spec,
                    reference,
                    moving[number + place],
                    seconds,
                    method,
                    used,
                    seed,
                    held,
                )
            )
    return out if many else out[0]


def _check_call(
    found: Any, given: Sequence[Any], to: Any, spec: SymmetrySpec, others: Mapping[str, Any], arch: Any
) -> None:  # fmt: skip
    """What can be told before any checkpoint is read."""
    if not given:
        raise MetanetError("no checkpoint to align was given: the list is empty")
    if to is None and not found.many:
        raise MetanetError(
            f"matcher {found.name!r} aligns to a checkpoint that stays: give it as to=..."
        )
    if found.many and to is None and len(given) < 2:
        raise MetanetError(
            f"matcher {found.name!r} aligns checkpoints to each other: give two or more, or to=..."
        )
    if "arch" in found.needs and not (
        isinstance(arch, Architecture) and arch.recording is not None
    ):
        raise MetanetError(
            f"matcher {found.name!r} needs the recording: give arch=metanet.trace(model, inputs)"
        )
    missing = [n for n in found.needs if n in others and others[n] is None]
    if missing:
        raise MetanetError(f"matcher {found.name!r} needs {', '.join(f'{n}=...' for n in missing)}")
    if not any(g.kind == "permutation" and g.size > 1 for g in spec.groups):
        raise MetanetError(
            "this architecture has no group of neurons that may be exchanged: there is nothing to align"
        )


def _one(problem: Problem, number: int) -> Problem:
    """The problem of one of its checkpoints."""
    return replace(problem, moving=[problem.moving[number]])


def _alignment(
    match: Match, spec: SymmetrySpec, reference: Mapping[str, Tensor] | None, moving: Mapping[str, Tensor],
    seconds: float, method: str, options: Mapping[str, Any], seed: int, held: Mapping[str, str],
) -> Alignment:  # fmt: skip
    """With the reasons for every group that stays, and a warning for those that nothing is known
    of."""
    still = [
        g.name
        for g in spec.groups
        if g.kind == "permutation" and g.name not in match.transform.elements
    ]
    sides = [s for s in (reference, moving) if s is not None]
    untold = {**untold_groups(spec, still, sides), **match.untold}
    untold = {g: why for g, why in untold.items() if g in still and g not in held}
    if untold:
        lines = "\n".join(f"  {g}: {why}" for g, why in untold.items())
        warnings.warn(
            f"{len(untold)} groups stay as they are, nothing tells their neurons apart:\n{lines}",
            UntoldNeuronsWarning,
            stacklevel=3,
        )
    known = {**untold, **held}
    identity = {g: known.get(g, "no relabelling that was found fits better") for g in still}
    shown = {
        k: v if isinstance(v, (int, float, str, bool, type(None))) else str(v)
        for k, v in options.items()
    }
    return Alignment(match.transform, match.objective, identity, seconds, method, shown, seed)
