"""Repair of a merged network's statistics."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...checkpoints import Checkpoint
from ...errors import MetanetError
from ...evaluation import Runner, entries, load, working_copy
from ...registry import is_own
from .._part import Problem
from .._range import stored_as
from ._calibrate import Corrections, calibrate
from ._goals import Measured, Spread, between, measure_layers
from ._normalisers import normalisers
from ._registry import REPAIRS


def check_repair(
    name: str, model: nn.Module | None, data: Iterable[Any] | None, passes: int | None = 1
) -> None:
    """What can be told before anything is read.

    Raises:
        MetanetError: no such repair, no network or no data to run it on, or nothing in it to
            repair.
    """
    if passes is not None and (not isinstance(passes, int) or passes < 1):
        raise MetanetError(
            f"repair_passes={passes!r}: give 1 or more, or none to go on until statistics are exact"
        )
    if name not in REPAIRS and not is_own(name):
        raise MetanetError(f"there is no repair={name!r}. Choices: {', '.join(REPAIRS)}, or none")
    needed = {"model": model, "data": data}
    missing = [f"{what}=..." for what, value in needed.items() if value is None]
    if missing or model is None:
        raise MetanetError(f"repair={name!r} runs the merged network: give {' and '.join(missing)}")
    if REPAIRS.find(name) is None and not normalisers(model):
        others = ", ".join(n for n, correct in REPAIRS.items() if correct is not None)
        raise MetanetError(
            f"repair={name!r}: {type(model).__name__} has no running statistics (BatchNorm); other "
            f"repairs: {others}"
        )


def repaired(
    name: str,
    merged: Checkpoint,
    problem: Problem,
    weights: Sequence[float],
    passes: int | None = 1,
    overflow: str = "error",
) -> Checkpoint:
    """The merged checkpoint with its statistics repaired, tensor by tensor when they are asked for.

    One copy of the module stands for all networks in turn. Queries, keys and values are layers like
    others; what no correction can go into (embeddings, tied weights, fused projections of
    ``nn.MultiheadAttention``, recurrent cells) is left and told of.

    Args:
        name: of :data:`metanet.merging.repairs.REPAIRS`.
        merged: by the names of the module.
        problem: the models, aligned already, the module and the data; what was done goes to its
            report.
        weights: how much each model counts; they sum to 1.
        passes: how often the merged network reads the data; ``None``: until its statistics are
            exact.
        overflow: what is done about corrected values beyond their dtype: see
            :func:`._range.stored_as`.

    Raises:
        MetanetError: the method changed shapes, there is nothing to repair, or a network can't run
            the data.
    """
    correct = REPAIRS.find(name)
    run = Runner(problem.device)
    stage = working_copy(problem.network, problem.device)
    data = problem.batches
    _check_shapes(merged, stage)
    ends: list[Measured] = []
    counts = [weight for weight in weights if weight]
    if correct is not None:
        for checkpoint, weight in zip(problem.models, weights, strict=True):
            if weight:
                load(stage, checkpoint)
                ends.append(measure_layers(stage, data, run))
    goals = between(ends, counts) if ends else {}
    norms = normalisers(stage)
    if correct is not None and not goals and not norms:
        raise MetanetError(
            f"repair={name!r}: {type(stage).__name__} has no layer that can be corrected"
        )
    load(stage, merged)
    corrections = calibrate(
        stage, data, run, goals, correct, passes=passes, progress=problem.progress
    )
    _report(problem.report, corrections, goals, ends[0].left if ends else {}, len(norms))
    first = entries(problem.network)[1]
    return merged.mapped(_Correction(corrections, first, overflow, problem.report))


@dataclass(frozen=True)
class _Correction:
    """Corrects a merged tensor.

    Attributes:
        found: the corrections.
        first: name -> the first of the names of its tensor.
        overflow: what is done about values beyond their dtype.
        report: what there is to tell goes here.
    """

    found: Corrections
    first: Mapping[str, str]
    overflow: str
    report: dict[str, Any]

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        first = self.first.get(name, name)
        is_narrow = tensor.is_floating_point() and tensor.dtype.itemsize < 4
        if first not in self.found or not is_narrow:
            return self.found(first, tensor)
        corrected = self.found(first, tensor.float())
        return stored_as(tensor.dtype, name, corrected, self.overflow, self.report.__setitem__)


def _check_shapes(merged: Checkpoint, stage: nn.Module) -> None:
    """Raises MetanetError if the module can't hold the merged tensors."""
    for name, tensor in entries(stage)[0].items():
        if name in merged and tensor.shape != merged.shapes[name]:
            raise MetanetError(
                f"repair runs the merged network, but its {name} is {tuple(merged.shapes[name])} "
                f"and {type(stage).__name__} has {tuple(tensor.shape)}: what a method gives "
                "another shape can't be repaired"
            )


def _report(
    report: dict[str, Any],
    found: Corrections,
    goals: Mapping[str, Spread],
    untouched: Mapping[str, str],
    norms: int,
) -> None:
    """Tell what was done, and which layers were not corrected, by reason."""
    report["repair/passes"] = found.passes
    report["repair/normalisers measured anew"] = norms
    if not goals and not untouched:
        return
    report["repair/layers corrected"] = len(goals)
    without_bias = [goal for goal in goals.values() if goal.layer.bias is None]
    report["repair/of them without bias, scaled only"] = len(without_bias)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in untouched.items():
        by_reason[reason].append(name)
    for reason, names in by_reason.items():
        listed = names[:3] if len(names) <= 3 else [*names[:3], "..."]
        report[f"repair/left: {reason}"] = ", ".join(listed)
