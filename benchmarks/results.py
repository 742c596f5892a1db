"""Collect the final numbers of runs into one CSV and the Markdown tables of docs/results.

The runs themselves are ordinary commands, for instance

    python train.py -m model=probed_gmn,gmn,deep_sets,stat seed=0,1,2
    python train.py -m experiment=inr_classification seed=0,1,2

and this reads what they left behind:

    python benchmarks/results.py NAME=FOLDER [NAME=FOLDER ...] > table.md

(``--csv FILE`` writes the numbers too), where FOLDER is a run directory, or a sweep's, whose runs
differ in their seed only.
"""

import argparse
import csv
import json
import statistics
from pathlib import Path


def runs(folder: Path) -> list[dict[str, float]]:
    """The metrics of every finished run in a folder."""
    found = sorted(folder.glob("metrics.json")) or sorted(folder.glob("*/metrics.json"))
    if not found:
        raise SystemExit(
            f"{folder}: no metrics.json in it or one level below: is it a run or sweep directory?"
        )
    return [json.loads(p.read_text()) for p in found]


def cell(values: list[float]) -> str:
    """Mean and standard deviation over runs."""
    mean = statistics.mean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--csv", type=Path, help="write every number, one row per run")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=["test/tau", "test/r2", "test/mae", "unseen/tau", "unseen/r2"],
    )
    args = parser.parse_args()
    given = [
        (name, runs(Path(folder))) for name, _, folder in (row.partition("=") for row in args.rows)
    ]
    print("| model | runs | " + " | ".join(args.columns) + " |")
    print("|---" * (len(args.columns) + 2) + "|")
    for name, metrics in given:
        cells = [
            cell([m[c] for m in metrics]) if all(c in m for m in metrics) else ""
            for c in args.columns
        ]
        print(f"| {name} | {len(metrics)} | " + " | ".join(cells) + " |")
    if args.csv:
        keys = sorted({k for _, metrics in given for m in metrics for k in m})
        with open(args.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["model", "run", *keys])
            for name, metrics in given:
                for number, m in enumerate(metrics):
                    writer.writerow([name, number, *(m.get(k, "") for k in keys)])


if __name__ == "__main__":
    main()
