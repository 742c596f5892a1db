"""Statistics of every tensor into gradient-boosted trees."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import MetanetError
from .._architecture import ARCHITECTURE_FEATURES
from .._layout import Layout
from .._metanet import Graphs, Metanet, read_graphs
from .._registry import register
from .._statistics import STATISTICS
from .._tables import CONSTANT_TYPES, EDGE_TYPES
from .._trees import check, evaluate, export


@register("stat")
class StatNN(Metanet):
    """Gradient-boosted trees on mean, variance and quantiles of every tensor.

    StatNN, after `Unterthiner et al., Predicting Neural Network Accuracy from Weights, 2020
    <https://arxiv.org/abs/2002.11448>`_.

    Tensors of different architectures are aligned by what they are and by their position among
    those of their kind, counted from the input and, once more, from the output; what an
    architecture lacks is missing. The architecture features stand beside them.

    Args:
        out_dim: numbers predicted, or classes.
        iterations: boosting rounds.
        learning_rate: of each round.
        leaves: most leaves of a tree.
        min_samples: fewest training networks in a leaf.
        l2: regularisation of the leaves.
        columns: share of the columns that each split may look at.
        positions: tensors of one kind that are told apart, counted from either end.
        seed: of the choice of columns.
    """

    def __init__(
        self,
        out_dim: int = 1,
        iterations: int = 500,
        learning_rate: float = 0.05,
        leaves: int = 15,
        min_samples: int = 10,
        l2: float = 1.0,
        columns: float = 0.3,
        positions: int = 6,
        seed: int = 0,
    ) -> None:
        self.out_dim, self.positions = out_dim, positions
        self.options = {
            "max_iter": iterations, "learning_rate": learning_rate, "max_leaf_nodes": leaves,
            "min_samples_leaf": min_samples, "l2_regularization": l2, "max_features": columns,
            "early_stopping": False, "random_state": seed,
        }  # fmt: skip
        self.trees: dict[str, np.ndarray] = {}
        self.columns = np.zeros(0, dtype=np.int64)

    def features(self, graphs: Graphs) -> Float[np.ndarray, "graphs columns"]:
        """The whole table, also of columns that no training network has."""
        layout = read_graphs(graphs, torch.device("cpu"), torch.float64)
        slot, tensor = self._slots(layout)
        table = torch.full(
            (layout.graphs, 2 * EDGE_TYPES * self.positions, len(STATISTICS)),
            torch.nan,
            dtype=torch.float64,
        )
        table[layout.tensor_graph[tensor], slot] = layout.statistics()[tensor]
        return torch.cat([table.flatten(1), layout.architecture], 1).numpy()

    @property
    def _width(self) -> int:
        """Columns of the whole table."""
        return 2 * EDGE_TYPES * self.positions * len(STATISTICS) + len(ARCHITECTURE_FEATURES)

    def column_names(self) -> list[str]:
        """What the columns in use mean, e.g. ``"LINEAR 0 from the output, quantile_50"``."""
        from ...graph import EdgeType

        kinds = [EdgeType(k).name if k in set(EdgeType) else str(k) for k in range(EDGE_TYPES)]
        ends = ("input", "output")
        names = [
            f"{kind} {position} from the {end}, {statistic}"
            for end in ends for kind in kinds
            for position in range(self.positions) for statistic in STATISTICS
        ]  # fmt: skip
        names += ARCHITECTURE_FEATURES
        return [names[i] for i in self.columns]

    def _slots(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Which columns a tensor's statistics go to: numbers of slots, and of the tensors."""
        kind = layout.per_tensor(layout.tensors["kind"].double()[:, None])[:, 0].long()
        groups = kind + EDGE_TYPES * layout.tensor_graph
        # tensors of a graph stand in the order of execution, whatever the order of graphs
        order = groups.argsort(stable=True)
        count = torch.bincount(groups)
        first = count.cumsum(0) - count
        position = torch.empty_like(order)
        position[order] = torch.arange(len(order)) - first[groups[order]]
        slots, tensors = [], []
        learned = torch.ones_like(kind, dtype=torch.bool)
        for t in CONSTANT_TYPES:
            learned &= kind != t
        for end, at in enumerate((position, count[groups] - 1 - position)):
            kept = (learned & (at < self.positions)).nonzero()[:, 0]
            slots.append((end * EDGE_TYPES + kind[kept]) * self.positions + at[kept])
            tensors.append(kept)
        return torch.cat(slots), torch.cat(tensors)

    def fit(self, graphs: Graphs, targets: Tensor) -> None:
        """Learns from scratch: classes if the targets are integers, else numbers.

        Args:
            graphs: training networks.
            targets: ``(graphs,)`` or ``(graphs, out_dim)``, in the order of the stacks.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        table, y = self.features(graphs), np.asarray(targets)
        if len(y) != len(table):
            raise MetanetError(f"stat was given {len(table)} graphs and {len(y)} targets")
        with np.errstate(invalid="ignore"):
            known = ~np.isnan(table).all(0)
            constant = np.nanmin(np.where(known, table, 0), 0) == np.nanmax(
                np.where(known, table, 0), 0
            )
            complete = ~np.isnan(table).any(0)
        self.columns = (known & ~(constant & complete)).nonzero()[0]
        x = table[:, self.columns]
        if np.issubdtype(y.dtype, np.integer):
            models = [HistGradientBoostingClassifier(**self.options).fit(x, y.ravel())]
            if not np.array_equal(models[0].classes_, np.arange(self.out_dim)):
                raise MetanetError(
                    f"stat was built for the classes 0 to {self.out_dim - 1}, "
                    f"the targets are {models[0].classes_.tolist()}"
                )
        else:
            y = y.reshape(len(y), -1)
            if y.shape[1] != self.out_dim:
                raise MetanetError(
                    f"stat was built with out_dim={self.out_dim}, the targets have {y.shape[1]} columns"
                )
            models = [
                HistGradientBoostingRegressor(**self.options).fit(x, y[:, i])
                for i in range(self.out_dim)
            ]
        self.trees = export(models)
        self._fitted = models  # for comparison with scikit-learn's own predictions; not saved

    def predict(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        """Numbers, or for classes logits (two classes: of the second against the first, which gets
        0)."""
        if not self.trees:
            raise MetanetError("stat has learned nothing yet: call fit(graphs, targets) first")
        raw = evaluate(self.trees, self.features(graphs)[:, self.columns])
        if raw.shape[1] == 1 and self.out_dim == 2:
            raw = np.concatenate([np.zeros_like(raw), raw], 1)
        return torch.from_numpy(raw)

    def __call__(self, graphs: Graphs) -> Float[Tensor, "graphs out"]:
        return self.predict(graphs)

    def tensors(self) -> dict[str, Tensor]:
        """The trees as arrays, and the columns that they look at."""
        arrays = self.trees | {"columns": self.columns}
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`.

        Raises:
            MetanetError: the arrays are none of this model's.
        """
        arrays: dict[str, Any] = {name: t.numpy() for name, t in tensors.items()}
        if "columns" not in arrays:
            raise MetanetError("the tensors do not fit model 'stat':\n  missing     columns")
        columns = arrays.pop("columns")
        missing = {
            "feature",
            "threshold",
            "left",
            "right",
            "missing_left",
            "leaf",
            "value",
            "root",
            "output",
            "baseline",
        } - set(arrays)
        if arrays and missing:
            raise MetanetError(
                "the tensors do not fit model 'stat':\n"
                + "\n".join(f"  missing     {m}" for m in sorted(missing))
            )
        if arrays:
            check(arrays, columns, self._width)
        self.trees, self.columns = arrays, columns
