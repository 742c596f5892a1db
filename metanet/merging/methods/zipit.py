"""Zipping the features of several networks together, within networks too."""

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from ...alignment import checked
from ...errors import MetanetError
from ...symmetry import SymmetrySpec, leaves_of
from .._part import Part, Problem
from .._registry import method
from ..features import Roles, Zip, free_groups, matched, report, zip_features

MATCHINGS = ("greedy", "permutation")


def prepare(
    problem: Problem,
    *,
    alpha: float = 0.3,
    beta: float = 0.5,
    matching: str = "greedy",
    heads: str | Sequence[int] = "average",
    stop: str | Sequence[str] | None = None,
    task: int = 0,
    positions: int = 4096,
    batches: int | None = None,
) -> Zip:
    """Runs all networks over the data and decides which features become one.

    Args:
        alpha: factor on the correlations of features that were merged before; 0: merge pairs only.
        beta: of the merges, at most this share within one network; 1 where tasks have little in
            common.
        matching: "greedy", or "permutation": activation matching in all groups, none within a
            network.
        heads: "average"; "stack": the outputs of all networks one after another (a head that many
            times as wide); or for every output the number of the network that knows it, 0 and on.
        stop: name patterns of what stays one network's own, from somewhere on to the end: partial
            zipping.
        task: whose those stay. Merges with other tasks give the same zipped part.
        positions: at most so many samples (images x places, sequences x tokens) per layer and
            batch.
        batches: stop after so many.
    """
    count = len(problem.models)
    _check(count, alpha, beta, matching, heads, task)
    arch = problem.structure
    for checkpoint in problem.models:
        checked(arch.spec, checkpoint, str(checkpoint.path))
    free, reasons, roles = free_groups(arch, problem.models[0])
    patterns = [stop] if isinstance(stop, str) else list(stop or ())
    own, own_groups = _beyond(arch.spec, roles, patterns)
    movable = [g.name for g in arch.spec.groups if g.kind == "permutation" and g.size > 1]
    groups = [group for group in movable if group not in own_groups]
    zipped = [group for group in groups if group in free] if matching == "greedy" else []
    moved = [group for group in groups if group not in zipped]
    scores, transforms = matched(problem, zipped, moved, positions, batches)
    clusters = {}
    for group, correlations in scores.items():
        clusters[group] = zip_features(correlations, count, alpha, beta)
    problem.report.update(report(clusters))
    unseen = [group for group in zipped if group not in clusters]
    for group in unseen:
        problem.report[f"not zipped: {group}"] = "it shows nowhere along one axis"
    for group, reason in reasons.items():
        if group not in own_groups:
            problem.report[f"permuted only: {group}"] = reason
    tensors = {group: torch.from_numpy(numbers) for group, numbers in clusters.items()}
    plan = Zip(arch.spec, roles, tensors, transforms, heads, own, task)
    if heads != "average":
        plan.check_heads()
    return plan


def _check(
    count: int, alpha: float, beta: float, matching: str, heads: str | Sequence[int], task: int
) -> None:
    """Raises MetanetError if an option is none of its choices."""
    if matching not in MATCHINGS:
        raise MetanetError(
            f"method 'zipit': matching={matching!r}; give one of {', '.join(MATCHINGS)}"
        )
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:
            raise MetanetError(f"method 'zipit': {name}={value}; give a number from 0 to 1")
    if not isinstance(task, int) or not 0 <= task < count:
        raise MetanetError(
            f"method 'zipit': task={task!r}; give the number of a model, 0 to {count - 1}"
        )
    if isinstance(heads, str) and heads not in ("average", "stack"):
        raise MetanetError(
            f"method 'zipit': heads={heads!r}; give 'average', 'stack', or a model for every output"
        )


def _beyond(
    spec: SymmetrySpec, roles: Roles, patterns: Sequence[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """The tensors that stay one network's own, and the groups that only they make.

    Raises:
        MetanetError: no tensor is called like a pattern, or the boundary cuts through neurons of
            one group.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in spec.tensors):
            raise MetanetError(
                f"stop: no tensor is called like {pattern!r}; names are "
                f"{', '.join(list(spec.tensors)[:3])}"
            )
    own = frozenset(n for n in spec.tensors if any(fnmatchcase(n, p) for p in patterns))
    makers: dict[str, set[str]] = defaultdict(set)
    readers: dict[str, set[str]] = defaultdict(set)
    for name, tensor in spec.tensors.items():
        for number, axis in enumerate(tensor.axes):
            users = makers if roles.makes(name, number) else readers
            for leaf in leaves_of(axis):
                users[leaf.group].add(name)
    groups = set()
    for group, names in makers.items():
        inside = names & own
        outside = names - own
        if inside and outside:
            raise MetanetError(
                f"stop cuts through the neurons of {group}: {min(inside)} is beyond it, but "
                f"{min(outside)} makes the same neurons (a residual stream?). Stop where a stage "
                "of the network ends"
            )
        if not inside:
            continue
        before = readers[group] - own
        if before:
            raise MetanetError(
                f"stop: {min(before)} reads {group}, which is beyond it: stop before that, too"
            )
        groups.add(group)
    return own, frozenset(groups)


@method(
    "zipit",
    reference="https://arxiv.org/abs/2305.03053",
    needs=("arch", "model", "data"),
    prepare=prepare,
    shape=Zip.shape,
)
def zipit(part: Part) -> Tensor:
    r"""ZipIt! (Stoica et al. 2023): features that vary alike become one, also within a network.

    Networks of different tasks have features that the others lack. So of all features of a layer
    the two that correlate most on the data become one, again and again, wherever they come from.
    With :math:`M` averaging the features that became one, and :math:`U` giving every feature the
    one that it became part of, a layer's weights are :math:`M\,\mathrm{diag}(W_1, ..., W_k)\,U`.
    ``repair=bn_reset`` belongs to it: statistics of merged features are too wide.

    Neurons of a residual stream are zipped in all layers at once. Heads and their dims (products of
    queries and keys would mix features), and neurons that something else than weights looks at
    together (layer norms over a stream), are only relabelled, by activation matching.
    """
    return part.prepared.merged(part)
