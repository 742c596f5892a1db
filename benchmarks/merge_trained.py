"""Merging trained networks: what alignment and repair do for it.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python benchmarks/merge_trained.py [--parts pairs
    tasks own soups updates]
        [--networks mlp vgg resnet vit] [--seeds 0 1 2] [--cache FOLDER]

Networks and images are those of ``_merge_digits.py``: an MLP 784-512x3-10, a VGG of six
convolutions without normalisation, a narrow ResNet with BatchNorm, and timm's vision transformer
with three blocks. What is measured is in ``_merge_parts.py``:

- ``pairs``: networks of the seeds ``2i`` and ``2i + 1``, their middle by ``linear`` and ``slerp``,
  aligned by the matchers (on all training images) and repaired (on 1,000 of them) or not;
  ``ensemble`` averages their answers.
- ``tasks``: three networks fine-tuned from the base of seed ``2i`` on digits turned by 30 degrees
  either way and shrunk to 0.65. The first of them is relabelled at random; it is merged as it was,
  relabelled, and relabelled and aligned to the base by its weights. Accuracy is the mean over the
  three tasks. ``bn_reset`` reads 500 images of each.
- ``own``: a network merged with its own relabelling.
- ``soups``: three networks fine-tuned from one base on all three tasks at different rates.
- ``updates``: a network trained on 500 images and updated on 3,000: accuracy and negative flips.

Writes ``merge_trained.csv`` and ``merge_trained.png`` beside this file and prints tables: mean and
standard deviation over the seeds. Rows of other parts and networks that the file has are kept; so
are the networks in the cache, which are trained once.
"""

import argparse
import csv
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from _merge_digits import NETWORKS
from _merge_parts import BETWEEN, MATCHERS, OF_BASE, PARTS, repairs_of
from matplotlib.figure import Figure
from tqdm import tqdm

NUMBERS = (
    "accuracy",
    "loss",
    "calibrated_loss",
    "recovered",
    "equal",
    "negative_flips",
    "alpha",
    "seconds",
)
COLUMNS = ("part", "network", "seed", "method", "align", "repair", *NUMBERS, "date", "command")
SETTINGS = ("not relabelled", "none", "weight")

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=Path("data/merge_trained"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [
        (part, n, seed)
        for part in args.parts
        for n in PARTS[part][1]
        if n in args.networks
        for seed in args.seeds
    ]
    rows = [row for row in read() if (row["part"], row["network"]) not in {job[:2] for job in jobs}]
    command = "python benchmarks/merge_trained.py"
    for part, network, seed in tqdm(jobs, desc="merge_trained"):
        for row in PARTS[part][0](network, seed, args.cache):
            row = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
            rows.append({"part": part, "network": network, "seed": seed, **row,
                         "date": date.today().isoformat(), "command": command})  # fmt: skip
        write(rows)
    measured = {row["part"] for row in rows}
    if {"pairs", "tasks"} <= measured:
        draw(rows)
    for part in PARTS:
        if part in measured:
            print(TABLES[part](rows), end="\n\n")


def read() -> list[Row]:
    """The rows that there are."""
    path = Path(__file__).with_suffix(".csv")
    if not path.exists():
        return []
    with open(path, newline="") as file:
        found = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [{k: float(v) if k in NUMBERS else v for k, v in row.items()} for row in found]


def write(rows: Sequence[Row]) -> None:
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def chosen(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(k, "") == v for k, v in wanted.items())]


def values(rows: Sequence[Row], column: str, **wanted: Any) -> list[float]:
    return [row[column] for row in chosen(rows, **wanted)]


def cell(rows: Sequence[Row], column: str = "accuracy", **wanted: Any) -> str:
    """Mean ± standard deviation, in per cent."""
    found = [100 * v for v in values(rows, column, **wanted)]
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{spread}"


def methods_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def networks_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["network"] for row in rows))


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(each) + " |" for each in [head, ["---"] * len(head), *lines])


def table_of_pairs(rows: Sequence[Row]) -> str:
    """A line for each network and repair; linear, then slerp."""
    rows = chosen(rows, part="pairs")
    lines = []
    for network in networks_of(rows):
        own = chosen(rows, network=network)
        for repair in repairs_of(network):
            ends = [
                cell(own, method=name) if repair == "none" else "" for name in ("ends", "ensemble")
            ]
            middles = [
                " / ".join(cell(own, method=m, align=a, repair=repair) for m in BETWEEN)
                for a in MATCHERS
            ]
            zipped = (
                cell(own, method="zipit", repair=repair) if repair in ("none", "bn_reset") else ""
            )
            lines.append([f"{network}, {repair}", *ends, *middles, zipped])
    return markdown(["accuracy, %", "ends", "ensemble", *MATCHERS, "zipit"], lines)


def table_of_tasks(rows: Sequence[Row]) -> str:
    """Not relabelled, relabelled, relabelled and aligned."""
    rows = chosen(rows, part="tasks")
    columns = [
        (n, r)
        for n in networks_of(rows)
        for r in ("none", "bn_reset")
        if chosen(rows, network=n, repair=r)
    ]
    lines = [[name, *(cell(rows, network=n, method=name) if r == "none" else "" for n, r in columns)]
             for name in ("base", "each on its own task", "ensemble")]  # fmt: skip
    for method in OF_BASE:
        cells = [" / ".join(cell(rows, network=n, method=method, align=s, repair=r) for s in SETTINGS)
                 for n, r in columns]  # fmt: skip
        lines.append([method, *cells])
    for column, name in (
        ("recovered", "groups recovered"),
        ("equal", "tensors as if not relabelled"),
    ):
        shares = [
            statistics.mean(values(rows, column, network=n, repair=r, align="weight"))
            for n, r in columns
        ]
        lines.append([name, *(f"{share:.1%}" for share in shares)])
    head = [n if r == "none" else f"{n}, {r}" for n, r in columns]
    return markdown(["mean accuracy over tasks, %", *head], lines)


def table_of_own(rows: Sequence[Row]) -> str:
    rows = chosen(rows, part="own")
    lines = []
    for method in methods_of(rows):
        shares = [
            statistics.mean(values(rows, "equal", network=n, method=method))
            for n in networks_of(rows)
        ]
        lines.append([method, *(f"{share:.1%}" for share in shares)])
    return markdown(["tensors equal bit for bit", *networks_of(rows)], lines)


def table_of_soups(rows: Sequence[Row]) -> str:
    rows = chosen(rows, part="soups")
    lines = [
        [m, *(cell(rows, network=n, method=m) for n in networks_of(rows))] for m in methods_of(rows)
    ]
    return markdown(["mean accuracy over tasks, %", *networks_of(rows)], lines)


def table_of_updates(rows: Sequence[Row]) -> str:
    """Accuracy, and negative flips in brackets."""
    rows = chosen(rows, part="updates")
    lines = []
    for method in methods_of(rows):
        found = [{"network": n, "method": method} for n in networks_of(rows)]
        lines.append(
            [method, *(f"{cell(rows, **w)} ({cell(rows, 'negative_flips', **w)})" for w in found)]
        )
    return markdown(["accuracy (negative flips), %", *networks_of(rows)], lines)


TABLES = {"pairs": table_of_pairs, "tasks": table_of_tasks, "own": table_of_own, "soups": table_of_soups,
          "updates": table_of_updates}  # fmt: skip


def draw(rows: Sequence[Row]) -> None:
    """Left the middles of pairs, right the fine-tuned networks by TIES."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    of_pairs, of_tasks = chosen(rows, part="pairs"), chosen(rows, part="tasks")
    bars = {(n, repair): {m: values(of_pairs, "accuracy", network=n, method="linear", align=m, repair=repair)
                          for m in MATCHERS}
            for n in networks_of(of_pairs) for repair in repairs_of(n)}  # fmt: skip
    _bars(left, {f"{n}\n{repair}": found for (n, repair), found in bars.items()})
    ends = [
        statistics.mean(values(of_pairs, "accuracy", network=n, method="ends")) for n, _ in bars
    ]
    left.hlines(
        ends,
        [n - 0.42 for n in range(len(ends))],
        [n + 0.42 for n in range(len(ends))],
        "black",
        label="ends",
    )
    left.set(title="Middle of independently trained networks, by repair", ylabel="test accuracy")
    left.legend(fontsize=7, title="alignment", title_fontsize=7, ncol=5, loc="upper center",
                bbox_to_anchor=(0.5, -0.14))  # fmt: skip
    named = {
        "not relabelled": "not relabelled",
        "none": "one relabelled",
        "weight": "relabelled, aligned",
    }
    ties = {
        (n, repair): {
            label: values(
                of_tasks, "accuracy", network=n, method="ties", align=setting, repair=repair
            )
            for setting, label in named.items()
        }
        for n, repair in dict.fromkeys(
            (r["network"], r["repair"]) for r in chosen(of_tasks, method="ties")
        )
    }
    _bars(
        right,
        {n if repair == "none" else f"{n}\n{repair}": found for (n, repair), found in ties.items()},
    )
    right.set(
        title="TIES of three networks fine-tuned from one base",
        ylabel="mean test accuracy over tasks",
    )
    right.legend(fontsize=7, ncol=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


def _bars(axes: Any, groups: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A group of bars for each key; whiskers are standard deviations."""
    for place, found in enumerate(groups.values()):
        width = 0.8 / len(found)
        for number, (label, numbers) in enumerate(found.items()):
            spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
            middle = place + (number - (len(found) - 1) / 2) * width
            axes.bar(
                middle,
                statistics.mean(numbers),
                width,
                yerr=spread,
                color=f"C{number}",
                label=label if place == 0 else None,
                error_kw={"lw": 0.8},
            )
    axes.set_xticks(range(len(groups)), list(groups), fontsize=7)


if __name__ == "__main__":
    main()
