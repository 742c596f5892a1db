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
from ._registry import MATCHERS, Match, Matcher, Problem, find_matcher
from ._tables import holding
from ._untold import untold_groups

Weights = nn.Module | Mapping[str, Tensor]
Loss = Callable[[Any, Any], Tensor]


@overload
def align(
    b: Weights,
    to: Weights | None = None,
    *,
    arch: Architecture | SymmetrySpec,
    method: str = "weight",
    seed: int = 0,
    model: nn.Module | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Alignment: ...
@overload
def align(
    b: Sequence[Weights],
    to: Weights | None = None,
    *,
    arch: Architecture | SymmetrySpec,
    method: str = "weight",
    seed: int = 0,
    model: nn.Module | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> list[Alignment]: ...
def align(
    b: Weights | Sequence[Weights],
    to: Weights | None = None,
    *,
    arch: Architecture | SymmetrySpec,
    method: str = "weight",
    seed: int = 0,
    model: nn.Module | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> Alignment | list[Alignment]:
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
    entry = find_matcher(method, options)
    spec = arch if isinstance(arch, SymmetrySpec) else arch.spec
    weights: list[Weights]
    if isinstance(b, (nn.Module, Mapping)):
        many = False
        weights = [b]
        names = ["the checkpoint to be aligned"]
    else:
        many = True
        weights = list(b)
        names = [f"checkpoint {n + 1} of {len(weights)}" for n in range(len(weights))]
    others = {"model": model, "data": data, "loss": loss}
    _check_call(entry, weights, to, spec, others, arch)
    reference = None if to is None else checked(spec, to, "the checkpoint to align to")
    moving = [checked(spec, state, who) for state, who in zip(weights, names, strict=True)]
    problem = Problem(
        spec=spec,
        reference=reference,
        moving=moving,
        seed=seed,
        device=torch.device(device or "cpu"),
        arch=arch if isinstance(arch, Architecture) else None,
        model=model,
        data=data,
        loss=loss,
    )
    problems = [problem] if entry.many else [replace(problem, moving=[state]) for state in moving]
    alignments: list[Alignment] = []
    for whole in problems:
        begin = time.perf_counter()
        movable, held = holding(whole)
        result = entry.function(movable, **options)
        seconds = time.perf_counter() - begin
        for match in _checked_matches(result, entry, len(whole.moving)):
            transform = Transform(spec, match.transform.elements) if held else match.transform
            sides = [moving[len(alignments)]]
            if reference is not None:
                sides.insert(0, reference)
            alignments.append(
                Alignment(
                    transform=transform,
                    objective=match.objective,
                    identity=_reasons(transform, match.untold, sides, held),
                    seconds=seconds,
                    method=method,
                    options=_plain({**entry.options, **options}),
                    seed=seed,
                )
            )
    return alignments if many else alignments[0]


def _check_call(
    entry: Matcher,
    weights: Sequence[Any],
    to: Any,
    spec: SymmetrySpec,
    others: Mapping[str, Any],
    arch: Any,
) -> None:
    """What can be told before any checkpoint is read."""
    if not weights:
        raise MetanetError("no checkpoint to align was given: the list is empty")
    if to is None:
        _check_without_reference(entry, weights)
    has_recording = isinstance(arch, Architecture) and arch.recording is not None
    if "arch" in entry.needs and not has_recording:
        raise MetanetError(
            f"matcher {entry.name!r} needs the recording: give arch=metanet.trace(model, inputs)"
        )
    missing = [n for n in entry.needs if n in others and others[n] is None]
    if missing:
        raise MetanetError(f"matcher {entry.name!r} needs {', '.join(f'{n}=...' for n in missing)}")
    if not any(g.kind == "permutation" and g.size > 1 for g in spec.groups):
        raise MetanetError(
            "this architecture has no group of neurons that may be exchanged: there is nothing to align"
        )


def _check_without_reference(entry: Matcher, weights: Sequence[Any]) -> None:
    if not entry.many:
        raise MetanetError(
            f"matcher {entry.name!r} aligns to a checkpoint that stays: give it as to=..."
        )
    if len(weights) < 2:
        raise MetanetError(
            f"matcher {entry.name!r} aligns checkpoints to each other: give two or more, or to=..."
        )


def _checked_matches(result: Any, entry: Matcher, checkpoints: int) -> list[Match]:
    """What a matcher returned, if it is what it must be: plugins are written by anybody."""
    who = f"matcher {entry.name!r} in {MATCHERS.home(entry.name)}"
    matches = result if entry.many else [result]
    if not isinstance(matches, Sequence):
        raise MetanetError(
            f"{who} returned {type(result).__name__}; it takes many checkpoints and must return a "
            "metanet.alignment.Match for each of them, in a list"
        )
    if len(matches) != checkpoints:
        raise MetanetError(
            f"{who} returned {len(matches)} matches for {checkpoints} checkpoints; give one each"
        )
    for match in matches:
        if not isinstance(match, Match):
            raise MetanetError(
                f"{who} returned {type(match).__name__}; it must return a metanet.alignment.Match"
                + (" for each checkpoint" if entry.many else "")
            )
        if not match.objective:
            raise MetanetError(
                f"{who} returned a Match without an objective: give its value at the start, then "
                "after every step that raised it"
            )
    return list(matches)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they can be written to a file."""
    plain = (int, float, str, bool, type(None))
    return {name: v if isinstance(v, plain) else str(v) for name, v in options.items()}


def _reasons(
    transform: Transform,
    untold: Mapping[str, str],
    sides: Sequence[Mapping[str, Tensor]],
    held: Mapping[str, str],
) -> dict[str, str]:
    """Why each group stays that does; a warning for those that nothing is known of.

    Args:
        untold: what the matcher says of groups that it could tell nothing of.
        sides: the checkpoints that were matched.
        held: groups that were not to move.
    """
    spec = transform.spec
    permuted = (g.name for g in spec.groups if g.kind == "permutation")
    still = [name for name in permuted if name not in transform.elements]
    reasons = {**untold_groups(spec, still, sides), **untold}
    unclear = {g: why for g, why in reasons.items() if g in still and g not in held}
    if unclear:
        lines = "\n".join(f"  {g}: {why}" for g, why in unclear.items())
        warnings.warn(
            f"{len(unclear)} groups stay as they are, nothing tells their neurons apart:\n{lines}",
            UntoldNeuronsWarning,
            stacklevel=3,
        )
    reasons = {**unclear, **held}
    return {g: reasons.get(g, "no relabelling that was found fits better") for g in still}
