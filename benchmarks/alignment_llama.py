"""Weight matching at size: two checkpoints with the shapes of a Llama 7B, never both in memory.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 python benchmarks/alignment_llama.py
    [--layers 1 2 4]
        [--memory 2] [--sweeps 100] [--folder FOLDER]

Width 4096, 32 heads of 128, hidden size 11008, vocabulary 32000: 0.81 GB a layer in bf16 as the two
of 405 MB here, 0.52 GB for embedding and output. Random weights, written in shards of at most 1 GB;
the second checkpoint is another draw (``unrelated``), or the first with its neurons relabelled and
a tenth of noise (``planted``). Every alignment runs in a process of its own, which reads tensors
from disk when it needs them (``memory`` GiB are for copies and scores), and writes the moved
checkpoint shard by shard. Peak memory is the process's resident memory without the files' pages
(``VmHWM`` is given too, which counts pages of the files that the system has read ahead).

A straight line through the measured numbers of layers gives what 32 layers would take. Writes
``alignment_llama.csv`` beside this file. Needs ``pip install "metanet[hub]"`` and 6 GB of disk for
4 layers.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import metanet
from metanet.checkpoints import Checkpoint
from metanet.sources import import_torchvision
from metanet.symmetry import Transform

PLANTED = "planted.safetensors"

COLUMNS = ("layers", "pair", "GB each", "parameters", "memory", "threads", "seconds", "cpu seconds", "steps",
           "inner before", "inner after", "share found", "write s", "peak GB", "peak GB with pages",
           "load", "date", "command")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument(
        "--pairs", nargs="+", default=["planted", "unrelated"], choices=["planted", "unrelated"]
    )
    parser.add_argument("--memory", type=float, default=2.0, help="GiB, see the matcher's option")
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument(
        "--folder", type=Path, help="for the checkpoints; a temporary one if left out"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(align_one(Path(args.one), args.layers[0], args.memory, args.sweeps)))
        return
    rows = []
    with tqdm(
        total=len(args.layers) * len(args.pairs), desc="alignment_llama", unit=" pairs"
    ) as bar:
        for layers in args.layers:
            for pair in args.pairs:
                folder = Path(tempfile.mkdtemp(dir=args.folder))
                try:
                    size = make(folder, layers, pair)
                    rows.append(
                        {"layers": layers, "pair": pair, **size, **measured(folder, layers, args)}
                    )
                finally:
                    shutil.rmtree(folder)
                bar.write("  ".join(f"{k} {v}" for k, v in rows[-1].items()))
                bar.update()
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for pair in args.pairs:
        print(extrapolated([r for r in rows if r["pair"] == pair], 32))


def network(layers: int) -> nn.Module:
    """Without weights. The configuration's defaults are those of Llama 7B."""
    import_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, use_cache=False))


def made(shapes: Mapping[str, torch.Size], read: Callable[[str], Tensor]) -> Checkpoint:
    """A checkpoint that is made tensor by tensor as it is asked for."""
    return Checkpoint(Path("made"), read, shapes, dict.fromkeys(shapes, torch.bfloat16))


def drawn(shapes: Mapping[str, torch.Size], seed: int) -> Checkpoint:
    numbers = {name: n for n, name in enumerate(shapes)}

    def read(name: str) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + numbers[name])
        values = torch.randn(shapes[name], generator=generator)
        return (1 + 0.1 * values if values.ndim == 1 else 0.02 * values).bfloat16()

    return made(shapes, read)


def make(folder: Path, layers: int, pair: str) -> dict[str, Any]:
    """Writes both checkpoints, and the relabelling between them where there is one."""
    model = network(layers)
    shapes = {name: t.shape for name, t in model.state_dict().items()}
    a, b = drawn(shapes, 1), drawn(shapes, 2)
    metanet.save_checkpoint(folder / "a", a, max_shard_size="1GB")
    if pair == "planted":
        planted = metanet.trace(model).spec.sample(torch.Generator().manual_seed(0))
        planted.save(folder / PLANTED)
        other = b
        b = made(shapes, lambda name: planted.apply(name, (a[name] + 0.1 * other[name]).bfloat16()))
    metanet.save_checkpoint(folder / "b", b, max_shard_size="1GB")
    size = sum(f.stat().st_size for f in (folder / "a").iterdir())
    return {"GB each": round(size / 1e9, 2), "parameters": sum(s.numel() for s in shapes.values())}


def measured(folder: Path, layers: int, args: argparse.Namespace) -> dict[str, Any]:
    """One alignment in a process of its own."""
    options = ["--layers", str(layers), "--memory", str(args.memory), "--sweeps", str(args.sweeps)]
    command = [sys.executable, __file__, "--one", str(folder), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {
        "memory": args.memory, **json.loads(done.stdout.splitlines()[-1]),
        "load": round(os.getloadavg()[0], 1), "date": date.today().isoformat(),
        "command": "python benchmarks/alignment_llama.py",
    }  # fmt: skip


def align_one(folder: Path, layers: int, memory: float, sweeps: int) -> dict[str, Any]:
    arch = metanet.trace(network(layers))
    a, b = (metanet.load_checkpoint(folder / side) for side in "ab")
    with Peak() as peak:
        start, own = time.perf_counter(), time.process_time()
        found = metanet.align(b, to=a, arch=arch, memory=memory, max_sweeps=sweeps)
        seconds, cpu = time.perf_counter() - start, time.process_time() - own
        moved = made(b.shapes, lambda name: found.transform.apply(name, b[name]))
        metanet.save_checkpoint(folder / "moved", moved, max_shard_size="1GB")
        wrote = time.perf_counter() - start - seconds
    row: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "cpu seconds": round(cpu, 1),
    }
    row |= {"steps": len(found.objective) - 1, "inner before": round(found.objective[0], 1)}
    row |= {
        "inner after": round(found.objective[-1], 1),
        "share found": "",
        "write s": round(wrote, 1),
    }
    if (folder / PLANTED).exists():
        planted = Transform.load(folder / PLANTED).inverse()
        same = [
            torch.equal(found.transform.element(g.name), planted.element(g.name))
            for g in arch.spec.groups
        ]
        row["share found"] = round(sum(same) / len(same), 3)
    row |= {"peak GB": round(peak.own / 1e9, 2)}
    return {
        **row,
        "peak GB with pages": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2
        ),
    }


class Peak:
    """The largest anonymous resident memory while it is open, looked at a hundred times a
    second."""

    def __enter__(self) -> "Peak":
        self.own, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            lines = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
            )
            self.own = max(self.own, int(lines["RssAnon"].split()[0]) * 1024)

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join()


def extrapolated(rows: Sequence[Mapping[str, Any]], layers: int) -> str:
    """What a straight line through all rows says of a whole network."""
    found = f"{rows[0]['pair']}:"
    for row in rows:
        found += f" {row['layers']} layers {row['seconds']} s, {row['peak GB']} GB;"
    if len(rows) > 1:
        for column, unit in (
            ("seconds", "s"),
            ("cpu seconds", "s of the processor"),
            ("peak GB", "GB"),
        ):
            slope, start = np.polyfit([r["layers"] for r in rows], [r[column] for r in rows], 1)
            found += f" {layers} layers by a straight line: {start + slope * layers:.1f} {unit};"
    return found


if __name__ == "__main__":
    main()
