"""The final evaluation: every split, plain and with each network's neurons relabelled at random."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..graph import GraphStack
from ..nn import Metanet
from ._data import WeightBatch, WeightData
from ._module import check_finite
from ._task import Task


@dataclass(frozen=True)
class Evaluation:
    """Predictions and metrics of one trained model.

    Attributes:
        predictions: by split, in the order of ``data.splits``.
        metrics: ``{split: {metric: value}}``.
        relabelled: the same after a random relabelling of every network.
        largest_change: of any raw output under relabelling, in units of the outputs' standard
            deviation.
        seconds_per_network: of the plain predictions.
    """

    predictions: Mapping[str, Tensor]
    metrics: Mapping[str, Mapping[str, float]]
    relabelled: Mapping[str, Mapping[str, float]]
    largest_change: float
    seconds_per_network: float


def evaluate(
    model: Metanet,
    task: Task,
    data: WeightData,
    splits: tuple[str, ...],
    seed: int,
    device: Any = "cpu",
) -> Evaluation:
    """Evaluate on the given splits and run the relabelling check on all of them.

    Raises:
        MetanetError: outputs that are not finite.
    """
    predictions, metrics, relabelled, outputs, moved = {}, {}, {}, [], []
    generator = torch.Generator().manual_seed(seed)
    seconds = count = 0.0
    for split in splits:
        start = time.perf_counter()
        output = outputs_of(model, data, split, device=device)
        seconds, count = seconds + time.perf_counter() - start, count + len(output)
        other = outputs_of(model, data, split, generator, device)
        target = data.target[data.splits[split]]
        check_finite(output, float(task.loss(output, target)), f"on the split {split}")
        predictions[split] = task.predict(output)
        metrics[split] = task.metrics(predictions[split], target)
        relabelled[split] = task.metrics(task.predict(other), target)
        outputs.append(output)
        moved.append(other)
    plain, other = torch.cat(outputs), torch.cat(moved)
    spread = plain.double().std(0).max().clamp_min(1e-12)
    change = float((plain - other).abs().max() / spread)
    return Evaluation(predictions, metrics, relabelled, change, seconds / max(count, 1))


def outputs_of(
    model: Metanet,
    data: WeightData,
    split: str,
    relabel: torch.Generator | None = None,
    device: Any = "cpu",
) -> Tensor:
    """Raw outputs ``(networks, out_dim)`` of a split, in its order, float32 on the CPU.

    Args:
        relabel: draws a relabelling of every network's neurons first; none without it.
        device: that the model computes on.
    """
    outputs: list[Tensor] = []
    rows: list[Tensor] = []
    for batch in data.stacks(split):
        if relabel is not None:
            batch = relabelled_batch(batch, data, relabel)
        answer = model.predict(batch.to(device).stacks)
        outputs.append(torch.as_tensor(answer).float().cpu().reshape(len(batch), -1))
        rows.append(batch.rows)
    order = torch.cat(rows)
    position = torch.empty(len(data.target), dtype=torch.long)
    position[order] = torch.arange(len(order))
    return torch.cat(outputs)[position[data.splits[split]]]


def relabelled_batch(
    batch: WeightBatch, data: WeightData, generator: torch.Generator
) -> WeightBatch:
    """Every network of a batch with its own random relabelling of its neurons: the same
    functions."""
    stacks = []
    for name, stack in zip(batch.names, batch.stacks, strict=True):
        template, spec = stack.template, data.members[name].architecture.spec
        state = template.tensors(stack.edge_attr)
        networks = [{key: value[i] for key, value in state.items()} for i in range(len(stack))]
        moved = [spec.sample(generator)(network) for network in networks]
        together = {key: torch.stack([network[key] for network in moved]) for key in state}
        values = template.values(together).to(stack.edge_attr.dtype)
        stacks.append(GraphStack(template, values))
    return replace(batch, stacks=tuple(stacks))
