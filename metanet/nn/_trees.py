"""Gradient-boosted trees as plain arrays: what scikit-learn learned, saved and evaluated without
it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import MetanetError

_FIELDS = {
    "feature": ("feature_idx", np.int64),
    "threshold": ("num_threshold", np.float64),
    "left": ("left", np.int64),
    "right": ("right", np.int64),
    "missing_left": ("missing_go_to_left", np.uint8),
    "leaf": ("is_leaf", np.uint8),
    "value": ("value", np.float64),
}
_CHUNK = 256  # samples evaluated at a time, to bound memory

Arrays = dict[str, np.ndarray]


def export(models: list[Any]) -> Arrays:
    """The trees of fitted histogram gradient boosting models (one per output, or one with an output
    per class).

    Returns:
        the fields of all nodes of all trees, one tree after the other; ``root`` and ``output`` of
        every tree; ``baseline`` of every output.
    """
    nodes: dict[str, list[np.ndarray]] = {name: [] for name in _FIELDS}
    roots, outputs, baselines, first, done = [], [], [], 0, 0
    for model in models:
        baseline = np.ravel(model._baseline_prediction)
        for stage in model._predictors:
            for output, tree in enumerate(stage):
                table = tree.nodes
                for name, (field, dtype) in _FIELDS.items():
                    column = table[field].astype(dtype)
                    nodes[name].append(column + first if name in ("left", "right") else column)
                roots.append(first)
                outputs.append(done + output)
                first += len(table)
        done += len(baseline)
        baselines.append(baseline)
    arrays = {name: np.concatenate(parts) for name, parts in nodes.items()}
    return arrays | {
        "root": np.array(roots, dtype=np.int64),
        "output": np.array(outputs, dtype=np.int64),
        "baseline": np.concatenate(baselines).astype(np.float64),
    }


def evaluate(trees: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Sums of the trees' values: ``(samples, features)`` -> ``(samples, outputs)``, raw as
    scikit-learn calls them."""
    out = np.tile(trees["baseline"], (len(features), 1))
    leaf = trees["leaf"].astype(bool)
    for start in range(0, len(features), _CHUNK):
        part = features[start : start + _CHUNK]
        rows = np.arange(len(part))[:, None]
        node = np.tile(trees["root"], (len(part), 1))  # (samples, trees)
        while True:
            inner = ~leaf[node]
            if not inner.any():
                break
            x = part[rows, np.where(inner, trees["feature"][node], 0)]
            left = np.where(
                np.isnan(x), trees["missing_left"][node].astype(bool), x <= trees["threshold"][node]
            )
            node = np.where(inner, np.where(left, trees["left"][node], trees["right"][node]), node)
        values = trees["value"][node]
        for output in range(out.shape[1]):
            out[start : start + _CHUNK, output] += values[:, trees["output"] == output].sum(1)
    return out


def check(trees: Mapping[str, np.ndarray], columns: np.ndarray, width: int) -> None:
    """Refuse arrays that are no trees: evaluating them would not end, or would read beyond their
    ends.

    Args:
        columns: of the feature table, those that the trees use.
        width: of that table.

    Raises:
        MetanetError: what is wrong.
    """
    nodes = len(trees["feature"]) if trees["feature"].ndim == 1 else -1
    fields = {name: trees[name].shape == (nodes,) for name in _FIELDS}
    kinds = {
        name: np.can_cast(trees[name].dtype, dtype, "same_kind")
        for name, (_, dtype) in _FIELDS.items()
    }
    more = [trees[name] for name in ("root", "output")] + [columns]
    if not all(fields.values()) or not all(kinds.values()) or trees["baseline"].ndim != 1:
        raise MetanetError("the tensors are no trees: their fields differ in length or kind")
    if any(a.ndim != 1 or not np.issubdtype(a.dtype, np.integer) for a in more) or len(
        more[0]
    ) != len(more[1]):
        raise MetanetError(
            "the tensors are no trees: roots, outputs and columns must be lists of numbers"
        )
    inner = np.flatnonzero(trees["leaf"] == 0)
    bounds = {
        # children stand behind their parents: every path ends
        "left": (trees["left"][inner], inner + 1, nodes),
        "right": (trees["right"][inner], inner + 1, nodes),
        "feature": (trees["feature"][inner], 0, len(columns)),
        "root": (trees["root"], 0, nodes),
        "output": (trees["output"], 0, len(trees["baseline"])),
        "columns": (columns, 0, width),
    }
    for name, (values, low, high) in bounds.items():
        if ((values < low) | (values >= high)).any():
            raise MetanetError(f"the tensors are no trees: {name} leads out of them")
