"""How fast the graph metanetwork is on dense stacks and on sparse batches: the same model, the same
numbers.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/gmn_dense.py [--width 32 --layers 3 --batch 63
    --seconds 8]

One training step (forward and backward) on networks of the digits zoo's nine architectures, values
drawn at random. Prints a table and writes ``gmn_dense.csv`` beside this file.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import metanet
import metanet.nn
from metanet.graph import GraphStack, unstack
from metanet.sources import load_factory
from metanet.zoo.digits_classifiers import ARCHITECTURES, IMAGE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=63)
    parser.add_argument("--seconds", type=float, default=8.0, help="measured for so long, each")
    args = parser.parse_args()
    torch.manual_seed(0)
    stacks = []
    for factory, arguments in ARCHITECTURES.values():
        network = load_factory(f"metanet.zoo.networks:{factory}")(**arguments)
        template = metanet.trace(network.eval(), torch.rand(2, *IMAGE)).template
        graphs = max(1, args.batch // len(ARCHITECTURES))
        stacks.append(GraphStack(template, 0.2 * torch.randn(graphs, template.num_edges, 1)))
    from torch_geometric.data import Batch

    batch = Batch.from_data_list([g for s in stacks for g in unstack(s).to_data_list()])
    model = metanet.nn.build("gmn", width=args.width, layers=args.layers, dropout=0.0)
    model.fit_normalisation(stacks)
    networks, edges = sum(map(len, stacks)), sum(s.edge_attr.numel() for s in stacks)
    difference = float((model(stacks) - model(batch)).abs().max() / model(stacks).std())
    rows = []
    for path, graphs in (("dense", stacks), ("sparse", batch)):
        seconds = measure(
            lambda graphs=graphs: model(graphs).square().mean().backward(), args.seconds
        )
        rows.append({
            "path": path, "width": args.width, "layers": args.layers, "threads": torch.get_num_threads(),
            "networks": networks, "edges": edges, "seconds_per_step": round(seconds, 4),
            "networks_per_second": round(networks / seconds), "edges_per_second": round(edges / seconds),
        })  # fmt: skip
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{k} {v}" for k, v in row.items()))
    ratio = rows[1]["seconds_per_step"] / rows[0]["seconds_per_step"]
    print(
        f"dense is {ratio:.1f} times as fast; largest difference of outputs {difference:.0e} of their spread"
    )


def measure(step: Callable[[], None], seconds: float) -> float:
    """Median seconds of a step, after two that do not count."""
    step()
    step()
    times = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
