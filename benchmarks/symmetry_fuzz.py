"""Random programs of all kinds of operations: are the symmetries that are found in them true?

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python benchmarks/symmetry_fuzz.py [--programs 5000]
    [--first 0]

Every program (``metanet.testing.Program(seed)``) is traced and verified in float64 with three
random relabellings. The figures go to ``symmetry_fuzz.csv`` beside this file, the seeds of unsound
programs to the terminal.
"""

import argparse
import csv
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

import metanet
from metanet.testing import Program

TOLERANCE = 1e-8  # of the spread of outputs that may be nearly constant: rounding reaches 1e-9, mistakes 1e-2


def measure(seed: int) -> dict[str, object]:
    """What is found in one program, and the largest relative output change under its
    relabellings."""
    torch.set_num_threads(1)
    program = Program(seed)
    arch = metanet.trace(program, program.example)
    report = metanet.verify(program, arch.spec, program.example, sensitivity=False, draws=3)
    return {
        "seed": seed, "kinds": program.kinds, "operations": len(arch.recording.ops),
        "groups": len(arch.spec.groups), "keyed groups": sum(bool(g.keys) for g in arch.spec.groups),
        "change": report.change, "without rule": [w.split()[0] for w in arch.warnings if "has no rule" in w],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programs", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.programs)
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        found = list(
            tqdm(
                pool.imap_unordered(measure, seeds, chunksize=20), total=len(seeds), unit="program"
            )
        )
    unsound = sorted(f["seed"] for f in found if not f["change"] < TOLERANCE)
    kinds = Counter(kind for f in found for kind in f["kinds"])
    row = {
        "programs": len(found), "first seed": args.first, "kinds of steps": len(kinds),
        "operations": sum(f["operations"] for f in found), "groups": sum(f["groups"] for f in found),
        "keyed groups": sum(f["keyed groups"] for f in found), "unsound": len(unsound),
        "largest change": f"{max(f['change'] for f in found):.1e}",
        "operations without rule": " ".join(sorted({n for f in found for n in f["without rule"]})),
        "seconds": round(time.perf_counter() - start), "torch": torch.__version__,
    }  # fmt: skip
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    print(", ".join(f"{name}: {value}" for name, value in row.items()))
    for seed in unsound:
        print(f"unsound: Program({seed})")
    return 1 if unsound else 0


if __name__ == "__main__":
    sys.exit(main())
