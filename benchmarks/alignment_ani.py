"""Matchers on networks that others trained: the energies of atoms in molecules, half-way between
ANI's networks.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python benchmarks/alignment_ani.py [--folder
    data/packages]
        [--draws 0 1 2] [--matchers PATTERN ...]

torchani 2.0 ships 8 independently trained networks of ANI-1x for each of 4 elements (H
384-160-128-96-1 and so on). Every two of the 8 are aligned by every matcher, 28 pairs in 7 rounds
of 4 disjoint ones, and averaged; the error is that of the average's outputs against the mean of all
8 networks (the label that the fine-tuned and the single network alike are measured by), root mean
square in kcal/mol. Inputs are the atoms of the molecules of G2 with H, C, N and O alone, every
molecule distorted four times (0.05 Angstrom a coordinate); one draw of distortions is seen by the
matchers, ``error`` is measured on the same, ``error, new`` on another draw. Matchers that take
seconds a pair are measured on the first draw and in two of the rounds alone. Two sets of molecules:
``all`` 81, and the 61 ``closed``-shell ones that ANI was made for. Spread is over rounds and draws.

Packages (torchani and ase, 50 MB) are downloaded by pip and unpacked, never installed or imported
but for ase's geometries. Writes ``alignment_ani.csv`` beside this file, one row per element,
matcher, set of molecules, draw and round.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from _alignment_ani import ELEMENTS, atoms, energy, molecules
from _real_networks import FOLDER, REAL, fetch
from torch import Tensor, nn
from tqdm import tqdm

import metanet
from metanet.alignment import MATCHERS as REGISTERED

KCAL = 627.509  # per Hartree
WATER = ([0, 0, 3], [[0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692], [0.0, 0.0, 0.1173]])
MATCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("", {}),
    "weight": ("weight", {}),
    "weight, balanced": ("weight", {"balance": True}),
    "weight, 10 restarts": ("weight", {"restarts": 10}),
    "activation": ("activation", {}),
    "activation, covariance": ("activation", {"by": "covariance"}),
    "combined": ("combined", {}),
    "combined, balanced": ("combined", {"balance": True}),
    "combined, share 3": ("combined", {"share": 3.0}),
    "straight_through": ("straight_through", {"epochs": 20}),
    "sinkhorn": ("sinkhorn", {}),
    "sinkhorn, midpoint": ("sinkhorn", {"on": "midpoint", "steps": 100}),
    "universe": ("universe", {}),
    "merge_many": ("merge_many", {}),
}
"""What is measured, by the name in the table: a matcher and its options."""

SLOW = ("straight_through", "sinkhorn", "sinkhorn, midpoint")
"""Seconds a pair: in two rounds on the first draw of the first set alone."""

COLUMNS = ("element", "molecules", "matcher", "draw", "round", "atoms", "end a", "end b", "error",
           "error, new", "cosine", "seconds", "load", "date", "command")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="of the packages, else $METANET_PACKAGES"
    )
    parser.add_argument(
        "--draws", nargs="+", type=int, default=[0, 1, 2], help="seeds of the distortions"
    )
    parser.add_argument("--matchers", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--sets", nargs="+", default=["all", "closed"], choices=["all", "closed"])
    args = parser.parse_args()
    chosen = {
        name: MATCHERS[name] for name in MATCHERS if any(fnmatch(name, p) for p in args.matchers)
    }
    nets = {
        real.name[-1]: real
        for real in REAL["torchani"](fetch("torchani", args.folder))
        if "1x_8x" in real.name
    }
    check(nets)
    rows = []
    found: dict[tuple, tuple[Any, float]] = {}
    quick = {name: each for name, each in chosen.items() if name not in SLOW}
    total = len(ELEMENTS) * (
        7 * len(args.sets) * len(args.draws) * len(quick) + 2 * (len(chosen) - len(quick))
    )
    with tqdm(total=total, desc="alignment_ani", unit=" rounds") as bar:
        for kind in args.sets:
            given = molecules(args.folder, kind == "closed")
            for draw in args.draws:
                first = (kind, draw) == (args.sets[0], args.draws[0])
                seen, new = atoms(given, 4, 0.05, draw), atoms(given, 4, 0.05, draw + 1000)
                for element in ELEMENTS:
                    bench = Bench(nets[element], seen[element], new[element])
                    for number, pairs in enumerate(rounds(8)):
                        now = chosen if first and number < 2 else quick
                        for name, (method, options) in now.items():
                            row = bench.row(pairs, method, options, found, (element, name))
                            rows.append({"element": element, "molecules": kind, "matcher": name, "draw": draw,
                                         "round": number, **row})  # fmt: skip
                            bar.update()
                write(rows)
    for kind in args.sets:
        print(f"\n{kind} molecules\n{table([r for r in rows if r['molecules'] == kind])}")


def rounds(members: int) -> list[list[tuple[int, int]]]:
    """Every two of an even number of members, in rounds of disjoint pairs; neighbours come
    first."""
    turn, out = list(range(1, members)), []
    for _ in range(members - 1):
        circle = [0, *turn]
        out.append([tuple(sorted((circle[i], circle[-1 - i]))) for i in range(members // 2)])
        turn = turn[1:] + turn[:1]
    return out


def check(nets: Mapping[str, Any]) -> None:
    """That features and networks belong together: water's energy."""

    def atom(element: str, x: Any) -> float:
        real = nets[element]
        inputs = torch.from_numpy(x)
        outs = [
            float(torch.func.functional_call(real.module, dict(state), (inputs,)))
            for state in real.states
        ]
        return statistics.mean(outs)

    found = energy(WATER[0], torch.tensor(WATER[1], dtype=torch.float64).numpy(), atom)
    if abs(found - -76.389) > 0.005:
        raise SystemExit(
            f"the energy of water came out as {found:.3f} Hartree, not -76.389: the features are wrong"
        )


class Bench:
    """The networks of one element on one draw of inputs."""

    def __init__(self, real: Any, seen: Any, new: Any) -> None:
        self.module: nn.Module = real.module.eval()
        self.states = real.states
        self.arch = metanet.trace(self.module, *real.example)
        self.inputs = [torch.from_numpy(x) for x in (seen, new)]
        self.labels = [
            torch.stack([self.run(s, x) for s in self.states]).mean(0) for x in self.inputs
        ]
        batches = self.inputs[0].split(256), self.labels[0].split(256)
        self.data = list(zip(*batches, strict=True))

    @torch.no_grad()
    def run(self, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(self.module, dict(state), (x,))

    def error(self, state: Mapping[str, Tensor], draw: int = 0) -> float:
        return (
            float((self.run(state, self.inputs[draw]) - self.labels[draw]).square().mean().sqrt())
            * KCAL
        )

    def row(
        self,
        pairs: Sequence[tuple[int, int]],
        method: str,
        options: Mapping[str, Any],
        found: dict,
        key: tuple,
    ) -> dict[str, Any]:
        """Means over disjoint pairs. What reads weights alone is found once for all draws."""
        values: dict[str, list[float]] = {}
        for i, j in pairs:
            a, b = self.states[i], self.states[j]
            alignment, seconds = None, 0.0
            if method:
                reads = bool(REGISTERED[method].needs) or "on" in options
                place = (*key, i, j)
                if reads or place not in found:
                    given = {"model": self.module, "data": self.data} if reads else {}
                    if reads and method in ("straight_through", "sinkhorn"):
                        given["loss"] = nn.functional.mse_loss
                    start = time.perf_counter()
                    alignment = metanet.align(
                        b, to=a, arch=self.arch, method=method, **given, **options
                    )
                    seconds = time.perf_counter() - start
                    if not reads:
                        found[place] = alignment, seconds
                else:
                    alignment, seconds = found[place]
            moved = b if alignment is None else alignment(b)
            middle = {n: (a[n] + moved[n]) / 2 for n in a}
            inner, size = (sum(float((a[n] * s[n]).sum()) for n in a) for s in (moved, a))
            other = sum(float(t.square().sum()) for t in b.values())
            for name, value in (
                ("end a", self.error(a)), ("end b", self.error(b)), ("error", self.error(middle)),
                ("error, new", self.error(middle, 1)), ("cosine", inner / (size * other) ** 0.5),
                ("seconds", seconds),
            ):  # fmt: skip
                values.setdefault(name, []).append(value)
        row: dict[str, Any] = {
            name: round(statistics.mean(each), 4) for name, each in values.items()
        }
        return {"atoms": len(self.inputs[0]), **row, "load": round(os.getloadavg()[0], 1),
                "date": date.today().isoformat(),
                "command": "python benchmarks/alignment_ani.py"}  # fmt: skip


def write(rows: Sequence[Mapping[str, Any]]) -> None:
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| | " + " | ".join(ELEMENTS) + " | cosine | seconds a pair |",
        "|---" * (len(ELEMENTS) + 3) + "|",
    ]
    ends = [
        statistics.mean((r["end a"] + r["end b"]) / 2 for r in rows if r["element"] == e)
        for e in ELEMENTS
    ]
    lines.append("| endpoints | " + " | ".join(f"{v:.2f}" for v in ends) + " | | |")
    for name in dict.fromkeys(r["matcher"] for r in rows):
        cells = []
        own = [r for r in rows if r["matcher"] == name]
        for element in ELEMENTS:
            errors = [r["error"] for r in own if r["element"] == element]
            cells.append(f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f}")
        cosine, seconds = (statistics.mean(r[c] for r in own) for c in ("cosine", "seconds"))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {cosine:.2f} | {seconds:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
