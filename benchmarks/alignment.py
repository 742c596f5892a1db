"""Weight matching, side by side with others' on identical weights.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/alignment.py [--networks mlp resnet18 resnet50]
    [--seeds 0 1 2]
        [--threads 1] [--limit 900] [--peer git-re-basin=PATH]
        [--peer-python git-re-basin=PYTHON rebasin=PYTHON sinkhorn-rebasin=PYTHON]

Two random networks (every parameter and every statistic of BatchNorm drawn) are written once per
network and aligned by every tool in turn, seed by seed, each time in a fresh process. Tools:

- ``metanet``, scipy's solver; ``metanet, lapx`` where lapx can be imported.
- ``git-re-basin``, the JAX original: a checkout of it (``--peer``), and a Python with jax, flax and
  scipy.
- ``rebasin`` 0.0.47 and ``sinkhorn-rebasin`` 0.0.2 of PyPI, which own one module name: a Python
  each. They need torch.

Seconds are those of the matching alone, after a warm-up (``_alignment_peers.py`` tells what each
does); ``prepare`` is finding the groups. Distances are over parameters, in float64; statistics
follow but do not count. ``moved`` are the groups whose neurons were relabelled; the outputs, in
eval mode and float64, should not have changed. A tool that is not done after the limit is stopped,
gets a row that says so, and is not tried with other seeds. Writes ``alignment.csv`` beside this
file; with ``--append`` rows are added to those of earlier networks.
"""

import argparse
import csv
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from _alignment_networks import EXAMPLES, NETWORKS, random_state
from torch import Tensor
from tqdm import tqdm

import metanet
from metanet.symmetry import Leaf

HERE = Path(__file__).parent
OURS = ("metanet", "metanet, lapx")
PEERS = ("git-re-basin", "rebasin", "sinkhorn-rebasin")
COLUMNS = (
    "network", "tool", "seed", "threads", "seconds", "cpu seconds", "prepare", "groups", "moved", "steps",
    "L2 before", "L2 after", "inner before", "inner after", "output change", "load", "version", "error",
    "machine", "date", "command",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="for each tool")
    parser.add_argument("--limit", type=float, default=900, help="seconds for each run of a tool")
    parser.add_argument("--tools", nargs="+", help="those alone")
    parser.add_argument("--peer", nargs="+", default=[], metavar="NAME=PATH", help="checkouts")
    parser.add_argument(
        "--peer-python", nargs="+", default=[], metavar="NAME=PYTHON", help="interpreters"
    )
    parser.add_argument("--append", action="store_true", help="to the rows of earlier runs")
    args = parser.parse_args()
    paths, pythons = (
        dict(each.split("=", 1) for each in given) for given in (args.peer, args.peer_python)
    )
    tools = usable(paths, pythons)
    tools = [t for t in tools if args.tools is None or t in args.tools]
    rows = []
    with tqdm(
        total=len(args.networks) * len(args.seeds) * len(tools), desc="alignment", unit=" runs"
    ) as bar:
        for network in args.networks:
            with tempfile.TemporaryDirectory() as folder:
                pair = Pair(network, Path(folder))
                stopped: set[str] = set()
                for seed in args.seeds:
                    for tool in tools:
                        bar.update()
                        if tool in stopped:
                            continue
                        options = {
                            "network": network,
                            "seed": seed,
                            "path": paths.get(tool),
                            "lapx": "lapx" in tool,
                        }
                        if tool in paths:
                            options["commit"] = commit(Path(paths[tool]))
                        row = pair.run(
                            tool,
                            pythons.get(tool, sys.executable),
                            options,
                            args.threads,
                            args.limit,
                        )
                        rows.append(row)
                        if "not finished" in row.get("error", ""):
                            stopped.add(tool)
                        bar.write(
                            "  ".join(f"{k} {row[k]}" for k in (*COLUMNS[:16], "error") if k in row)
                        )
            write(rows, args.append)
    print(table(rows, tools))


def usable(paths: Mapping[str, str], pythons: Mapping[str, str]) -> list[str]:
    """The tools that can run; says what the others would need."""
    tools = ["metanet"]
    if importlib.util.find_spec("lap") is not None:
        tools.append("metanet, lapx")
    for peer in PEERS:
        if peer == "git-re-basin" and peer not in paths:
            print("git-re-basin is left out: give --peer git-re-basin=PATH of a checkout")
        elif peer not in pythons:
            print(
                f"{peer} is left out: give --peer-python {peer}=PYTHON of an environment that has it"
            )
        else:
            tools.append(peer)
    return tools


def commit(path: Path) -> str:
    """Of a checkout; ``unknown`` where it is a copy without history."""
    done = subprocess.run(["git", "-C", path, "rev-parse", "HEAD"], capture_output=True, text=True)
    top = subprocess.run(
        ["git", "-C", path, "rev-parse", "--show-toplevel"], capture_output=True, text=True
    )
    same = done.returncode == 0 and Path(top.stdout.strip()) == path.resolve()
    return done.stdout.strip() if same else "unknown"


class Pair:
    """Two networks in files, for all tools."""

    def __init__(self, network: str, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.a, self.b = random_state(network, 1), random_state(network, 2)
        for name, state in (("a", self.a), ("b", self.b)):
            metanet.save_checkpoint(folder / f"{name}.safetensors", state)
        with torch.device("meta"):
            self.spec = metanet.trace(NETWORKS[network](), torch.zeros(EXAMPLES[network])).spec
        axes = {name: [axis.group if isinstance(axis, Leaf) else None for axis in tensor.axes]
                for name, tensor in self.spec.tensors.items()}  # fmt: skip
        (folder / "axes.json").write_text(json.dumps(axes))

    def run(
        self, tool: str, python: str, options: Mapping[str, Any], threads: int, limit: float
    ) -> dict[str, Any]:
        """One row."""
        row: dict[str, Any] = {
            "network": self.network,
            "tool": tool,
            "seed": options["seed"],
            "threads": threads,
        }
        row |= {
            "load": round(os.getloadavg()[0], 1),
            "machine": machine(),
            "date": date.today().isoformat(),
        }
        row["command"] = "python benchmarks/alignment.py"
        (self.folder / "moved.safetensors").unlink(missing_ok=True)
        command = [
            python,
            HERE / "_alignment_peers.py",
            tool.split(",")[0],
            self.folder,
            json.dumps(options),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=limit,
                env=environment(tool in OURS, threads),
            )
        except subprocess.TimeoutExpired:
            return {**row, "error": f"not finished after {limit:.0f} s"}
        if done.returncode:
            return {
                **row,
                "error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][
                    :200
                ],
            }
        told = json.loads((self.folder / "told.json").read_text())
        moved = dict(metanet.load_checkpoint(self.folder / "moved.safetensors"))
        vectors = {name: t.axes[0] for name, t in self.spec.tensors.items() if len(t.axes) == 1}
        groups = {name: axis.group for name, axis in vectors.items() if isinstance(axis, Leaf)}
        changed = {
            group for name, group in groups.items() if not torch.equal(moved[name], self.b[name])
        }
        row |= {"seconds": round(told["seconds"], 3), "cpu seconds": round(told["cpu"], 3)}
        row |= {
            "prepare": round(told["prepare"], 3),
            "groups": told.get("groups"),
            "moved": len(changed),
        }
        row |= {"steps": told.get("steps"), "version": told["version"]}
        for when, state in (("before", self.b), ("after", moved)):
            inner, distance = self.compared(state)
            row |= {f"L2 {when}": round(distance, 4), f"inner {when}": round(inner, 3)}
        return {**row, "output change": f"{self.change(moved):.1e}"}

    def compared(self, state: Mapping[str, Tensor]) -> tuple[float, float]:
        """Inner product and distance of the parameters of ``a`` and another network."""
        names = [n for n, t in self.a.items() if t.is_floating_point() and "running_" not in n]
        inner = sum(float((self.a[n].double() * state[n].double()).sum()) for n in names)
        squares = sum(float((self.a[n].double() - state[n].double()).square().sum()) for n in names)
        return inner, squares**0.5

    @torch.no_grad()
    def change(self, moved: Mapping[str, Tensor]) -> float:
        """Largest change of an output of ``b``, relative to the largest output, in float64."""
        x = torch.randn(
            EXAMPLES[self.network], dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        module = NETWORKS[self.network]().double().eval()
        outputs = []
        for state in (self.b, moved):
            module.load_state_dict(state)
            outputs.append(module(x))
        return float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())


def environment(ours: bool, threads: int) -> dict[str, str]:
    """One number of threads for all, and none of our modules for peers."""
    out = {k: v for k, v in os.environ.items() if ours or k != "PYTHONPATH"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        out[name] = str(threads)
    out["XLA_FLAGS"] = (
        f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()} intra_op_parallelism_threads={threads}"
    )
    return {**out, "OMP_WAIT_POLICY": "PASSIVE", "JAX_PLATFORMS": "cpu"}


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}"
    )


def write(rows: Sequence[Mapping[str, Any]], append: bool) -> None:
    path = Path(__file__).with_suffix(".csv")
    kept = []
    if append and path.exists():
        with open(path, newline="") as file:
            again = {(r["network"], r["tool"], str(r["seed"]), str(r["threads"])) for r in rows}
            kept = [
                r
                for r in csv.DictReader(file)
                if (r["network"], r["tool"], r["seed"], r["threads"]) not in again
            ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def table(rows: Sequence[Mapping[str, Any]], tools: Sequence[str]) -> str:
    """For docs/results: medians of seconds, means of the rest; ``slower``: than the first tool of the
    network."""
    lines = [
        "| network | tool | seconds | slower | L2 before -> after | groups moved | output change |",
        "|---" * 7 + "|",
    ]
    for network in dict.fromkeys(r["network"] for r in rows):
        first = None
        for tool in tools:
            own = [r for r in rows if r["network"] == network and r["tool"] == tool]
            done = [r for r in own if "seconds" in r]
            if not done:
                lines.append(f"| {network} | {tool} | {own[0]['error']} | | | | |")
                continue
            seconds = statistics.median(r["seconds"] for r in done)
            first = first or seconds
            after = [r["L2 after"] for r in done]
            spread = f" ± {statistics.stdev(after):.3f}" if len(after) > 1 else ""
            lines.append(
                f"| {network} | {tool} | {seconds:.2f} | {seconds / first:.1f} | "
                f"{done[0]['L2 before']:.2f} -> {statistics.mean(after):.3f}{spread} | "
                f"{done[0]['moved']} | {done[0]['output change']} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
