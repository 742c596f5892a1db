"""What is found along a path: the curves, the barriers, and their table and picture."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..alignment import Alignment
from ..checkpoints import atomic_write
from ..errors import MetanetError
from ..evaluation import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Barrier:
    """Loss and accuracy along the straight path from one network to another.

    The barrier is the largest amount by which the loss on the path is above the straight line
    between the losses of the two ends (for accuracy: below it); 0 at least, and 0 if the path is
    nowhere worse than its ends.

    Attributes:
        lambdas: the points, from 0 (the first network) to 1 (the second).
        curves: by measure ``"loss"``, and where the targets are classes ``"accuracy"`` and
            ``"calibrated_loss"``, the value at every point.
        samples: how many samples each value is a mean over.
        statistics: what was done to them between the ends: ``"keep"``, ``"reset"``, ``"repair"``,
            ``"rescale"``.
        alignment: by which the second network was moved onto the first before; ``None`` if it was
            not.
        unaligned: the same without the alignment.
    """

    lambdas: tuple[float, ...]
    curves: Mapping[str, tuple[float, ...]]
    samples: int
    statistics: str = "keep"
    alignment: Alignment | None = field(default=None, repr=False)
    unaligned: "Barrier | None" = field(default=None, repr=False)

    @property
    def loss(self) -> tuple[float, ...]:
        """The loss at every point."""
        return self.curves["loss"]

    @property
    def accuracy(self) -> tuple[float, ...] | None:
        """The accuracy at every point; ``None`` where the targets are no classes."""
        return self.curves.get("accuracy")

    @property
    def barrier(self) -> float:
        """The barrier of the loss."""
        return self.of("loss")

    @property
    def accuracy_barrier(self) -> float | None:
        """The barrier of the accuracy; ``None`` where the targets are no classes."""
        return self.of("accuracy") if "accuracy" in self.curves else None

    def of(self, measure: str) -> float:
        """The barrier of a measure; NaN if the path has NaN.

        Raises:
            MetanetError: it was not measured.
        """
        if measure not in self.curves:
            raise MetanetError(
                f"{measure!r} was not measured; measured were {', '.join(self.curves)}"
            )
        values = self.curves[measure]
        sign = -1 if measure in METRICS and METRICS[measure].rises else 1
        above = [sign * (v - line) for v, line in zip(values, self._line(values), strict=True)]
        return math.nan if any(map(math.isnan, above)) else max(0.0, *above)

    def _line(self, values: tuple[float, ...]) -> list[float]:
        """The straight line between the ends' values; at the ends, and between equal ones, without
        rounding."""
        start, end = values[0], values[-1]
        inner = [start + (end - start) * x for x in self.lambdas[1:-1]]
        return [start, *inner, end]

    def numbers(self) -> dict[str, float]:
        """The barriers, and the values at both ends and half-way, by name; those without alignment
        beside them."""
        half = min(range(len(self.lambdas)), key=lambda n: abs(self.lambdas[n] - 0.5))
        out: dict[str, float] = {}
        for measure, values in self.curves.items():
            out[f"{measure}/barrier"] = self.of(measure)
            out |= {
                f"{measure}/a": values[0],
                f"{measure}/b": values[-1],
                f"{measure}/middle": values[half],
            }
        if self.unaligned is not None:
            out |= {
                f"unaligned/{name}": value
                for name, value in self.unaligned.numbers().items()
                if name.endswith(("/barrier", "/middle"))
            }
        return out

    def columns(self) -> dict[str, tuple[float, ...]]:
        """The curves as columns of one table; those without alignment are called
        ``unaligned_...``."""
        before = {} if self.unaligned is None else self.unaligned.curves
        return {
            "lambda": self.lambdas,
            **self.curves,
            **{f"unaligned_{name}": v for name, v in before.items()},
        }

    def to_csv(self, path: str | Path) -> None:
        """Write the curves, one line a point."""
        columns = self.columns()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        with atomic_write(path) as temporary:
            Path(temporary).write_text(text.getvalue())

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draw the curves, one panel a measure, with and without alignment; dashed: the line
        between the ends.

        Args:
            path: where to write the picture as PNG as well.

        Returns:
            The figure, which notebooks show by themselves.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.6 * len(self.curves), 3.8), layout="constrained")
        for axes, measure in zip(
            figure.subplots(1, len(self.curves), squeeze=False)[0], self.curves, strict=True
        ):
            if self.unaligned is not None:
                self.unaligned._draw(axes, measure, "as they are", "C1")
            self._draw(axes, measure, self._name(), "C0")
            axes.set(xlabel="from a (0) to b (1)", ylabel=measure.replace("_", " "))
            axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
        if path is not None:
            with atomic_write(path) as temporary:
                figure.savefig(temporary, dpi=130, format="png")
        return figure

    def _draw(self, axes: "Axes", measure: str, name: str, color: str) -> None:
        values = self.curves[measure]
        axes.plot(
            self.lambdas, values, ".-", color=color, label=f"{name}: barrier {self.of(measure):.3g}"
        )
        axes.plot([0, 1], [values[0], values[-1]], "--", color=color, lw=0.8)

    def _name(self) -> str:
        return "as they are" if self.alignment is None else f"aligned by {self.alignment.method}"

    def __str__(self) -> str:
        columns = self.columns()
        table = [
            list(columns),
            *([f"{v:.4f}" for v in row] for row in zip(*columns.values(), strict=True)),
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in table
        ]
        for curve in (self.unaligned, self):
            if curve is not None:
                barriers = ", ".join(
                    f"{m.replace('_', ' ')} {curve.of(m):.4g}" for m in curve.curves
                )
                lines.append(f"barrier {curve._name()}: {barriers}")
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """Everything but the curves, JSON-able."""
        how = (
            {}
            if self.alignment is None
            else {"matcher": self.alignment.method, "seconds": self.alignment.seconds}
        )
        return {**self.numbers(), "samples": self.samples, "points": len(self.lambdas), **how}
