"""How fast checkpoints become parameter graphs: 64 SIRENs beside other projects' builders, ResNets
beside a plain copy.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 python benchmarks/graph_build.py
        --peer gmn=PATH --peer neural-graphs=PATH --peer scalegmn=PATH [--seconds 6]

The peers are run from checkouts that you name (github.com: cptq/graph_metanetworks,
mkofinas/neural-graphs, jkalogero/scalegmn); without any, only ours is measured. All rows of one run
come from one process, in turns.

**SIRENs.** 64 networks of the public MNIST zoo's shape, 2-32-32-1, in memory -> one batch, ready
for the metanetwork that it is made for. Before the clock starts everything that depends on the
architecture alone has been made (our template, their edge indices, node and edge types), and every
batch is checked to hold the parameters of all networks.

- ours, PyG batch: 64 state dicts (or tensors that are already stacked) -> ``metanet.to_graph``, one
  batch with all 16 attributes of the schema; biases are edges.
- ours, dense arrays: the same start -> ``GraphTemplate.stack``, what our metanetworks train on.
- Graph Metanetworks: 64 modules -> ``sequential_to_arch``, ``arch_to_graph``,
  ``Batch.from_data_list``; biases are edges. It gets modules that exist already, without gradients.
- Neural Graphs: state dicts -> weights and biases as its data set cuts them -> ``default_collate``
  -> ``batch_to_graphs`` and mask, which NG-T reads (dense arrays, nodes x nodes) ->
  ``to_pyg_batch`` for NG-GNN. Its learned embeddings come after that and are not counted. Biases
  are node features.
- ScaleGMN: what its data set does with each loaded state dict, then ``Batch.from_data_list`` as its
  loader does.

Goal: ours at least 10 times as fast as the fastest peer with the same result from the same start
("state dicts" includes "modules").

**ResNets** of timm: ``to_graph`` with a warm template, and back, beside a plain copy of the state
dict (the faster of a clone of every tensor and one concatenation of all). Goal: ResNet-50 within 3
times the copy. ``template`` is the first ``to_graph`` of an architecture, everything shared
included.

Time is the median. "peak MB" is what new tensors take at most while one result is made (memory
profiler), "result MB" what all tensors of the result take, shared ones included (what
``from_graph`` returns are views of the graph), and "template MB" the growth of the process. Writes
``graph_build.csv`` beside this file.
"""

import argparse
import csv
import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from _graph_peers import PEERS, Builder, commit
from torch import Tensor

import metanet
from metanet.sources import load_source
from metanet.zoo.networks import Siren

NETWORKS, SIZES = 64, (2, 32, 32, 1)
COLUMNS = (
    "measured", "builder", "start", "result", "ms", "best ms", "repeats", "peak MB", "result MB", "nodes",
    "edges", "ours is faster by", "times the copy", "template s", "template MB",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PATH", help=", ".join(PEERS)
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="measured for so long, each")
    args = parser.parse_args()
    peers = dict(peer.partition("=")[::2] for peer in args.peer)
    if unknown := set(peers) - set(PEERS):
        parser.error(f"unknown peers {sorted(unknown)}; known: {', '.join(PEERS)}")
    torch.manual_seed(0)
    with torch.no_grad():
        rows = sirens({name: Path(path) for name, path in peers.items()}, args.seconds)
        for network in ("resnet18", "resnet50"):
            rows += resnet(network, args.seconds)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch-geometric", "timm"))
    commits = ", ".join(f"{name} {commit(Path(path))}" for name, path in peers.items())
    told = {
        "command": "python benchmarks/graph_build.py "
        + " ".join(f"--peer {name}=PATH" for name in peers),
        "versions": f"Python {platform.python_version()}, {packages}, {torch.get_num_threads()} threads",
        "peers": commits,
    }
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *told], restval="")
        writer.writeheader()
        writer.writerows({**row, **told} for row in rows)
    print(f"{table(rows)}\n\n{told['versions']}\n{commits}")
    slowest = min(
        (row["ours is faster by"] for row in rows if row.get("ours is faster by")), default=None
    )
    if slowest is not None:
        print(f"SIRENs: ours is {slowest} times as fast as the fastest peer, goal 10")
    goal = ("resnet50", "ours: to_graph")
    copy = next(row["times the copy"] for row in rows if (row["measured"], row["builder"]) == goal)
    print(f"resnet50: to_graph takes {copy} times the plain copy, goal at most 3")


def sirens(peers: Mapping[str, Path], seconds: float) -> list[dict[str, Any]]:
    """All builders in turns, each result checked first."""
    networks = [Siren(SIZES) for _ in range(NETWORKS)]
    states = [
        {name: tensor.detach() for name, tensor in network.state_dict().items()}
        for network in networks
    ]
    builders = ours(metanet.trace(networks[0], torch.rand(5, 2)), states)
    for name, checkout in peers.items():
        builders += PEERS[name](checkout, states)
    expected = (
        torch.cat([tensor.flatten() for state in states for tensor in state.values()]).sort().values
    )
    for builder in builders:
        found = builder.values(builder.build()).sort().values
        if not torch.equal(found, expected):
            raise SystemExit(
                f"{builder.name} from {builder.start}: the {builder.result} do not hold all parameters"
            )
    times = in_turns([builder.build for builder in builders], seconds)
    rows = []
    for builder, measured in zip(builders, times, strict=True):
        built = builder.build()
        sparse = builder.result == "PyG batch"
        rows.append({
            "measured": f"{NETWORKS} SIRENs", "builder": builder.name, "start": builder.start,
            "result": builder.result, **timing(measured), "peak MB": peak(builder.build),
            "result MB": size(built), "nodes": built.num_nodes if sparse else "",
            "edges": built.num_edges if sparse else "",
        })  # fmt: skip
    for row in rows:
        if row["builder"] != "ours":
            start = row["start"].replace("modules", "state dicts")
            mine = next(
                r
                for r in rows
                if (r["builder"], r["start"], r["result"]) == ("ours", start, row["result"])
            )
            row["ours is faster by"] = round(row["ms"] / mine["ms"], 1)
    return rows


def ours(arch: metanet.Architecture, states: Sequence[Mapping[str, Tensor]]) -> list[Builder]:
    template = arch.graph_template()

    def stacked() -> dict[str, Tensor]:
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    once = stacked()
    batch = {
        "name": "ours",
        "result": "PyG batch",
        "values": lambda graph: graph.edge_attr.flatten(),
    }
    dense = {
        "name": "ours",
        "result": "dense arrays",
        "values": lambda stack: stack.edge_attr.flatten(),
    }
    return [
        Builder(**batch, start="state dicts", build=lambda: metanet.to_graph(states, arch)),
        Builder(**batch, start="stacked tensors", build=lambda: metanet.to_graph(once, arch)),
        Builder(**dense, start="state dicts", build=lambda: template.stack(stacked())),
        Builder(**dense, start="stacked tensors", build=lambda: template.stack(once)),
    ]


def resnet(network: str, seconds: float) -> list[dict[str, Any]]:
    """There and back, and a plain copy."""
    model = load_source(f"timm:{network}").eval()
    state = model.state_dict()
    floats = [tensor for tensor in state.values() if tensor.is_floating_point()]
    arch = metanet.trace(model)
    before, start = resident(), time.perf_counter()
    graph = metanet.to_graph(state, arch)
    first, grown = time.perf_counter() - start, resident() - before
    back = metanet.from_graph(graph, arch)
    if not all(torch.equal(back[name], tensor) for name, tensor in state.items()):
        raise SystemExit(f"{network}: the round trip changed a tensor")
    steps: dict[str, Callable[[], Any]] = {
        "plain copy: clone every tensor": lambda: {
            name: tensor.clone() for name, tensor in state.items()
        },
        "plain copy: one concatenation": lambda: torch.cat([tensor.flatten() for tensor in floats]),
        "ours: to_graph": lambda: metanet.to_graph(state, arch),
        "ours: from_graph": lambda: metanet.from_graph(graph, arch),
    }
    times = in_turns(list(steps.values()), seconds)
    rows = [
        {"measured": network, "builder": name, **timing(measured), "peak MB": peak(step),
            "result MB": size(step()),
         "nodes": graph.num_nodes, "edges": graph.num_edges}
        for (name, step), measured in zip(steps.items(), times, strict=True)
    ]  # fmt: skip
    copy = min(row["ms"] for row in rows if row["builder"].startswith("plain"))
    for row in rows:
        row["times the copy"] = round(row["ms"] / copy, 2)
    template = {"measured": network, "builder": "ours: template", "template s": round(first, 2),
                "template MB": round(grown), "nodes": graph.num_nodes, "edges": graph.num_edges}  # fmt: skip
    return [*rows, template]


def in_turns(
    steps: Sequence[Callable[[], Any]], seconds: float, turns: int = 5
) -> list[list[float]]:
    """Seconds of each call; the steps take turns, so that a busy moment of the machine meets all of
    them."""
    times: list[list[float]] = [[] for _ in steps]
    gc.collect()
    for _ in range(turns):
        for step, measured in zip(steps, times, strict=True):
            step()
            end = time.perf_counter() + seconds / turns
            while (start := time.perf_counter()) < end:
                result = step()
                measured.append(time.perf_counter() - start)
                del result  # freeing what was built is not building
    return times


def timing(measured: Sequence[float]) -> dict[str, Any]:
    return {"ms": round(1e3 * statistics.median(measured), 3), "best ms": round(1e3 * min(measured), 3),
            "repeats": len(measured)}  # fmt: skip


def peak(step: Callable[[], Any]) -> float:
    """MB that tensors take at most during one call, what it returns included and what was there
    before left out."""
    step()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        result = step()
    del result
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    return round(max(accumulate(n for _, n in changes), default=0) / 1e6, 3)


def size(result: Any) -> float:
    """MB of all tensors in a graph, a stack, a mapping, a tuple or a tensor, each storage once."""
    found = result if isinstance(result, tuple) else [result]
    if hasattr(result, "to_dict"):
        found = result.to_dict().values()
    elif isinstance(result, Mapping):
        found = result.values()
    elif hasattr(result, "edge_attr"):
        found = [result.edge_attr]
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in found
        if isinstance(t, Tensor)
    }
    return round(sum(storages.values()) / 1e6, 3)


def resident() -> float:
    """MB of memory that the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [c for c in COLUMNS if any(str(row.get(c, "")) for row in rows)]
    cells = [shown, *([str(row.get(c, "")) for c in shown] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


if __name__ == "__main__":
    main()
