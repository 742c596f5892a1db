"""How fast metanetworks are, side by side in one run: forward and training step, dense and sparse.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/metanet_speed.py [--threads 1 2] [--seconds 2]

Two batches: 64 SIRENs 2-32-32-1, and 63 networks of the digits zoo's nine architectures; values are
drawn at random. Processor seconds, the best of as many repetitions as fit into ``--seconds``. Prints
a table and writes ``metanet_speed.csv`` beside this file.
"""

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import metanet
import metanet.nn
from metanet.graph import GraphStack, unstack
from metanet.sources import load_factory
from metanet.zoo.digits_classifiers import ARCHITECTURES, IMAGE
from metanet.zoo.networks import siren

MODELS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gmn", {"width": 32, "layers": 3}),
    ("gmn", {"width": 64, "layers": 4}),
    ("relay", {"width": 32}),
    ("relay", {"width": 64}),
    ("relay", {"width": 64, "backward": True}),
    ("relay", {"width": 64, "views": 1}),
    ("deep_sets", {"width": 64}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="measured for so long, each")
    args = parser.parse_args()
    torch.manual_seed(0)
    batches = {"64 SIRENs": sirens(64), "63 classifiers": classifiers(63)}
    rows = [
        measured(name, arguments, batch, stacks, threads, args.seconds)
        for threads in args.threads
        for batch, stacks in batches.items()
        for name, arguments in MODELS
    ]
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


def sirens(count: int) -> list[GraphStack]:
    return [random_stack(siren([32, 32]), torch.rand(2, 2), count)]


def classifiers(count: int) -> list[GraphStack]:
    stacks = []
    for factory, arguments in ARCHITECTURES.values():
        network = load_factory(f"metanet.zoo.networks:{factory}")(**arguments)
        stacks.append(random_stack(network, torch.rand(2, *IMAGE), count // len(ARCHITECTURES)))
    return stacks


def random_stack(network: torch.nn.Module, example: torch.Tensor, count: int) -> GraphStack:
    template = metanet.trace(network.eval(), example).template
    return GraphStack(template, 0.2 * torch.randn(count, template.num_edges, 1))


def measured(
    name: str,
    arguments: dict[str, Any],
    batch: str,
    stacks: list[GraphStack],
    threads: int,
    seconds: float,
) -> dict[str, Any]:
    """One row: a model on a batch."""
    from torch_geometric.data import Batch

    torch.set_num_threads(threads)
    model = metanet.nn.build(name, out_dim=10, dropout=0.0, **arguments)
    model.fit_normalisation(stacks)
    sparse = Batch.from_data_list([g for s in stacks for g in unstack(s).to_data_list()])

    def forward() -> None:
        with torch.no_grad():
            model(stacks)

    def step(graphs: Any) -> None:
        model.zero_grad()
        model(graphs).square().mean().backward()

    with torch.no_grad():
        dense = model(stacks)
        difference = float((dense - model(sparse)).abs().max() / dense.std())
    return {
        "batch": batch,
        "edges": sum(stack.edge_attr.numel() for stack in stacks),
        "model": name,
        "options": " ".join(f"{key}={value}" for key, value in arguments.items()),
        "parameters": model.parameter_count(),
        "threads": threads,
        "forward_ms": best(forward, seconds),
        "step_ms": best(lambda: step(stacks), seconds),
        "sparse_step_ms": best(lambda: step(sparse), seconds),
        "largest_difference": f"{difference:.0e}",
    }


def best(run: Callable[[], None], seconds: float) -> float:
    """Processor milliseconds of the fastest run, after one that does not count."""
    run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return round(1000 * min(times), 1)


if __name__ == "__main__":
    main()
