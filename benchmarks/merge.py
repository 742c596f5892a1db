"""How fast checkpoints are merged, and with how much memory: linear and TIES, beside mergekit and
sd-mecha.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/merge.py --mergekit PYTHON --sd-mecha PYTHON [--rounds
    3] [--folder DIR]

PYTHON is the interpreter of an environment that has the peer (mergekit 0.1.5, sd-mecha 1.1.8);
without, it is left out. Checkpoints: a base and two others of 64 float32 matrices of 2048 x 2048, 1
GiB each, in safetensors. TIES keeps the largest fifth of each difference and sums with normalised
weights; sd-mecha's counts differently, its result is another.

Every merge runs in a process of its own, in turns. The clock starts after the imports; the page
cache is warm (all inputs are read before each). Peak memory is the process's resident set, imports
and mapped pages included.

- read_and_write: all inputs read, each as a whole, and the bytes of one written.
- copy_in_pieces: the same, 16 MiB at a time in memory that is used again, which no program can
  undercut.
- load_and_average: ``load_file`` twice (mapped), ``torch.lerp``, ``save_file``.
- metanet: ``save_checkpoint(out, metanet.merge(...))``, with fsync.
- metanet_command: what ``metanet merge`` does: SHA-256 of all inputs too, for the model card.

Goals: linear within 1.5 times read_and_write; TIES at least 4 times as fast as mergekit; at most
0.75 GiB. Ratios are of medians. "entries that differ" counts those of our 268 million that differ
from mergekit's by more than 1e-6: TIES keeps exactly as many as wanted, and of equal magnitudes at
the edge mergekit takes any. Writes ``merge.csv``.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import metanet

CONTENDER = Path(__file__).with_name("_merge_contender.py")
COUNT, WIDTH = 64, 2048
COLUMNS = (
    "method", "program", "s", "best s", "processor s", "peak GiB", "times read_and_write",
    "ours is faster by", "entries that differ",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mergekit", metavar="PYTHON", help="interpreter that has mergekit")
    parser.add_argument("--sd-mecha", metavar="PYTHON", help="interpreter that has sd-mecha")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", help="for some 8 GiB of checkpoints; a temporary one when left out"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        inputs = checkpoints(Path(folder))
        rows = []
        for method in ("linear", "ties"):
            rows += measured(method, programs(method, args), inputs, Path(folder), args.rounds)
    peers = [
        f"--{name} PYTHON"
        for name in ("mergekit", "sd-mecha")
        if getattr(args, name.replace("-", "_"))
    ]
    told = {
        "command": f"python benchmarks/merge.py {' '.join(peers)} --rounds {args.rounds}",
        "versions": ", ".join([
            f"Python {platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores",
            *sorted({row.pop("version") for row in rows} - {""}),
        ]),
    }  # fmt: skip
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *told], restval="")
        writer.writeheader()
        writer.writerows({**row, **told} for row in rows)
    print("\n".join(["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in COLUMNS) + " |")
    print(told["versions"])


def programs(method: str, args: Any) -> dict[str, str]:
    """Name -> interpreter."""
    out = {"read_and_write": sys.executable, "copy_in_pieces": sys.executable}
    if method == "linear":
        out["load_and_average"] = sys.executable
    out |= {"metanet": sys.executable, "metanet_command": sys.executable}
    return out | {
        k: v for k, v in {"mergekit": args.mergekit, "sd_mecha": args.sd_mecha}.items() if v
    }


def checkpoints(folder: Path) -> list[Path]:
    """A base, and two that differ from it by a tenth."""
    out = [folder / f"{name}.safetensors" for name in ("base", "a", "b")]
    for number, path in enumerate(tqdm(out, desc="checkpoints")):
        tensors = {}
        for k in range(COUNT):
            tensor = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(k))
            if number:
                generator = torch.Generator().manual_seed(1000 * number + k)
                tensor += 0.1 * torch.randn(WIDTH, WIDTH, generator=generator)
            tensors[f"layers.{k}.weight"] = tensor
        metanet.save_checkpoint(path, tensors)
    return out


def measured(
    method: str, names: dict[str, str], inputs: list[Path], folder: Path, rounds: int
) -> list[dict[str, Any]]:  # fmt: skip
    """All programs in turns, and what they wrote compared."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in tqdm(range(rounds), desc=method):
        for name, python in names.items():
            for path in inputs:
                path.read_bytes()
            out = folder / name
            command = [python, CONTENDER, name, method, *inputs, out]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            if number < rounds - 1 or name in (
                "read_and_write",
                "copy_in_pieces",
                "load_and_average",
            ):
                remove(out)
    differing = {
        name: differences(folder / name, folder / "mergekit")
        for name in ("metanet", "metanet_command") if "mergekit" in names
    }  # fmt: skip
    for name in names:
        remove(folder / name)
    median = {name: {key: statistics.median(r[key] for r in runs) for key in ("seconds", "processor", "gib")}
              for name, runs in found.items()}  # fmt: skip
    rows = []
    for name, runs in found.items():
        row = {
            "method": method, "program": name, "s": round(median[name]["seconds"], 2),
            "best s": round(min(r["seconds"] for r in runs), 2),
            "processor s": round(median[name]["processor"], 2),
            "peak GiB": round(max(r["gib"] for r in runs), 2), "version": runs[0]["version"],
            "times read_and_write": round(median[name]["seconds"] / median["read_and_write"]["seconds"], 2),
        }  # fmt: skip
        if name in differing:
            row["entries that differ"] = differing[name]
        if name in ("mergekit", "sd_mecha"):
            row["ours is faster by"] = round(
                median[name]["seconds"] / median["metanet"]["seconds"], 1
            )
        rows.append(row)
    return rows


def remove(out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.with_suffix(".safetensors").unlink(missing_ok=True)


def differences(ours: Path, theirs: Path) -> int:
    """How many entries differ by more than 1e-6."""
    one, other = (
        metanet.load_checkpoint(p if p.exists() else p.with_suffix(".safetensors"))
        for p in (ours, theirs)
    )
    if set(one) != set(other):
        raise SystemExit(f"{ours.name} and {theirs.name} hold other tensors")
    return sum(int(((one[name] - other[name]).abs() > 1e-6).sum()) for name in one)


if __name__ == "__main__":
    main()
