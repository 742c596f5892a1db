"""Gradient-boosted trees as plain arrays: what scikit-learn learned, saved and evaluated without it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """The trees of fitted histogram gradient boosting models (one per output, or one with an output per class).

    Returns:
        the fields of all nodes of all trees, one tree after the other; ``root`` and ``output`` of every tree;
        ``baseline`` of every output.
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
    """Sums of the trees' values: ``(samples, features)`` -> ``(samples, outputs)``, raw as scikit-learn calls them."""
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
            left = np.where(np.isnan(x), trees["missing_left"][node].astype(bool), x <= trees["threshold"][node])
            node = np.where(inner, np.where(left, trees["left"][node], trees["right"][node]), node)
        values = trees["value"][node]
        for output in range(out.shape[1]):
            out[start : start + _CHUNK, output] += values[:, trees["output"] == output].sum(1)
    return out
