"""The course of a training run as a figure, from the table that the run leaves."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

_LOSSES = ("train/loss", "val/loss")


def read_epochs(folder: Path) -> dict[str, dict[int, float]]:
    """Every logged number by name and epoch, over all parts of a run that was stopped and resumed.

    Args:
        folder: the run directory; ``csv/version_N/metrics.csv`` are its parts, of which the later
            one counts.
    """
    epochs_by_name: dict[str, dict[int, float]] = {}
    parts = sorted(
        folder.glob("csv/version_*/metrics.csv"),
        key=lambda path: int(path.parent.name.rpartition("_")[2]),
    )
    for path in parts:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if name not in ("epoch", "step") and text and row.get("epoch"):
                        epochs_by_name.setdefault(name, {})[int(row["epoch"])] = float(text)
    return epochs_by_name


def draw_epochs(folder: Path, monitor: str) -> dict[str, Figure]:
    """Losses over epochs, and below them the metric that chooses the best one: ``{"loss":
    figure}``.

    Nothing for models that are not trained in epochs.
    """
    numbers = read_epochs(folder)
    if not any(name in numbers for name in _LOSSES):
        return {}
    figure = Figure(figsize=(6, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for name in _LOSSES:
        if name in numbers:
            epochs, values = zip(*sorted(numbers[name].items()), strict=True)
            above.plot(epochs, values, marker=".", label=name)
    above.set(ylabel="loss", title="training")
    above.legend()
    curve = sorted(numbers.get(monitor, {}).items())
    if curve:
        epochs, values = zip(*curve, strict=True)
        below.plot(epochs, values, marker=".", color="black")
        best, value = max(curve, key=lambda pair: pair[1])
        below.axvline(best, color="gray", lw=0.8, ls="--")
        below.set_title(f"best: {value:.4f} in epoch {best}", fontsize=9)
    below.set(xlabel="epoch", ylabel=monitor)
    below.xaxis.get_major_locator().set_params(integer=True)
    return {"loss": figure}
