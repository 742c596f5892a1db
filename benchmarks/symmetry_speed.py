"""How fast symmetries are derived, and whether Torch-Pruning, which traces on its own, couples the
same channels.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 python benchmarks/symmetry_speed.py
    [--limit 300]

- Seconds of the analysis (without the recorded forward pass) of ResNet-50, goal 0.1 s, and of an
  80-layer Llama, goal 2 s; median of five.
- ``metanet.trace`` of the 70B configuration of Llama on the meta device, from start to end with its
  second example: goal 15 s and 1 GB of resident memory, what importing takes included.
- The same Llama with 2 to 80 layers: seconds should grow as the number of operations does.
- ResNet-50, GPT-2 and a Llama with grouped queries: tensor axes that move together, as sets,
  against the groups of Torch-Pruning (``pip install torch-pruning``).

Every measurement runs in a process of its own with a time limit. Writes ``symmetry_speed.csv``
beside this file.
"""

import argparse
import csv
import json
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import metanet
from metanet.sources import import_torchvision
from metanet.symmetry import SymmetrySpec, derive, leaves_of
from metanet.tracing import example_inputs, record

LAYERS = (2, 4, 8, 16, 32, 48, 64, 80)
PACKAGES = ("torch", "torchvision", "transformers", "torch-pruning")
PATIENCE = 120  # seconds for Torch-Pruning
COLUMNS = (
    "measured", "network", "layers", "parameters", "ops", "record s", "analysis s", "total s", "peak GB",
    "peak GB, imports", "groups", "groups, Torch-Pruning", "the same", "ours alone",
    "Torch-Pruning alone", "error",
)  # fmt: skip

Entry = tuple[str, int]  # tensor, axis


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=300, help="seconds for each measurement")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "ARGUMENT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, argument = args.one
        print(json.dumps(KINDS[kind](argument)))
        return
    todo = [
        ("analysis", "resnet50"),
        *(("analysis", f"llama-{n}") for n in LAYERS),
        ("trace", "llama-80"),
    ]
    todo += [("groups", network) for network in ("resnet50", "gpt2", "gqa")]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    told = {
        "command": "python benchmarks/symmetry_speed.py",
        "versions": f"Python {platform.python_version()}, {versions}, {torch.get_num_threads()} threads",
    }
    rows = []
    for kind, argument in todo:
        row = {"measured": kind, **run(kind, argument, args.limit), **told}
        rows.append(row)
        print("  ".join(f"{k} {v}" for k, v in row.items() if k not in told), flush=True)
    with open(Path(__file__).with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *told], restval="")
        writer.writeheader()
        writer.writerows(rows)


def run(kind: str, argument: str, limit: float) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, argument]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"network": argument, "error": f"not finished after {limit:.0f} s"}
    if done.returncode:
        return {
            "network": argument,
            "error": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1],
        }
    return {"network": argument, **json.loads(done.stdout.splitlines()[-1])}


def analysis(network: str) -> dict[str, Any]:
    """Recording once, and the median of five analyses of it."""
    model, args, kwargs = build(network)
    start = time.perf_counter()
    trace = record(model, args, kwargs)
    recorded = time.perf_counter() - start
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        solved = derive(trace)
        seconds.append(time.perf_counter() - start)
    return {
        "layers": layers(network), "parameters": count(model), "ops": len(trace.ops),
        "record s": round(recorded, 3), "analysis s": round(statistics.median(seconds), 4),
        "groups": len(solved.spec.groups), "peak GB": peak(),
    }  # fmt: skip


def whole_trace(network: str) -> dict[str, Any]:
    """Everything that a user waits for, model and inputs given."""
    model, _, _ = build(network)
    before = peak()
    start = time.perf_counter()
    arch = metanet.trace(model)
    return {
        "layers": layers(network), "parameters": count(model),
        "total s": round(time.perf_counter() - start, 2), "groups": len(arch.spec.groups),
        "peak GB": peak(), "peak GB, imports": before,
    }  # fmt: skip


def groups(network: str) -> dict[str, Any]:
    """Axes that move together, by us and by Torch-Pruning.

    A group of Torch-Pruning whose channels are outputs of the network counts as one of them: it
    prunes those.
    """
    model, args, kwargs = build(network)
    ours = together(metanet.trace(model, *args, **kwargs).spec)
    row = {"parameters": count(model), "groups": len(ours)}
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        theirs = torch_pruning_groups(model, args, kwargs)
    except Exception as error:  # that it cannot is the result
        return {
            **row,
            "error": f"Torch-Pruning: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
        }
    return {
        **row, "groups, Torch-Pruning": len(theirs), "the same": len(ours & theirs),
        "ours alone": len(ours - theirs),
        "Torch-Pruning alone": "; ".join(sorted(f"{min(g)[0]} axis {min(g)[1]} and {len(g) - 1} more"
                                                for g in theirs - ours)[:5]),
    }  # fmt: skip


def stop(*_: Any) -> None:
    raise TimeoutError(f"not finished after {PATIENCE} s")


def together(spec: SymmetrySpec) -> set[frozenset[Entry]]:
    """Tensor axes joined by a group of neurons; an axis of several (heads x dims) joins all of
    these."""
    moving = {g.name for g in spec.groups if g.kind != "fixed"}
    found: list[tuple[set[str], set[Entry]]] = []
    for name, tensor in spec.tensors.items():
        for axis, expression in enumerate(tensor.axes):
            joined = {leaf.group for leaf in leaves_of(expression)} & moving
            if joined and tensor.tied_to is None:
                entries = {(name, axis)}
                for other in [f for f in found if f[0] & joined]:
                    found.remove(other)
                    joined, entries = joined | other[0], entries | other[1]
                found.append((joined, entries))
    return {frozenset(entries) for _, entries in found}


def torch_pruning_groups(model: nn.Module, args: Any, kwargs: Any) -> set[frozenset[Entry]]:
    """Torch-Pruning's groups as sets of tensor axes."""
    import torch_pruning

    inputs = {**kwargs} or args[0]
    graph = torch_pruning.DependencyGraph().build_dependency(model, inputs)
    names = {module: f"{name}." for name, module in model.named_modules()}
    found = set()
    for group in graph.get_all_groups():
        entries: set[Entry] = set()
        for dependency, _ in group:
            module, out = (
                dependency.target.module,
                graph.is_out_channel_pruning_fn(dependency.handler),
            )
            if module in names:  # else an operation without parameters
                entries |= {
                    (names[module] + tensor, axis) for tensor, axis in channel_axes(module, out)
                }
        found.add(frozenset(entries))
    return found


def channel_axes(module: nn.Module, out: bool) -> Iterable[Entry]:
    """The axes of a module's own tensors that are its output (input) channels."""
    own = {n: t for n, t in module.state_dict().items() if t.ndim and "." not in n}
    if all(t.ndim == 1 for t in own.values()):  # a normalisation: its channels go in and out
        return [(n, 0) for n in own]
    flipped = isinstance(module, nn.Embedding | nn.ConvTranspose2d)
    matrices = [(n, int(out == flipped)) for n, t in own.items() if t.ndim > 1]
    return matrices + [(n, 0) for n, t in own.items() if out and t.ndim == 1]


def build(network: str) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
    """``resnet50``, ``gpt2`` and ``gqa`` with weights; ``llama-N``: the 70B configuration, N
    layers, without."""
    import_torchvision()
    if network == "resnet50":
        from torchvision import models

        return models.resnet50().eval(), (torch.randn(2, 3, 64, 64),), {}
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if network == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=96, n_positions=32)
        )
    elif network == "gqa":
        model = LlamaForCausalLM(LlamaConfig(
            num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=80, vocab_size=96,
        ))  # fmt: skip
    else:
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(
                num_hidden_layers=layers(network), hidden_size=8192, num_attention_heads=64,
                num_key_value_heads=8, intermediate_size=28672, vocab_size=128256,
                max_position_embeddings=8192,
            ))  # fmt: skip
    example = example_inputs(model.eval())
    return model, example.args, dict(example.kwargs)


def layers(network: str) -> Any:
    return int(network.partition("-")[2]) if "-" in network else ""


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def peak() -> float:
    """GB of resident memory that this process had at most."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)


KINDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "analysis": analysis,
    "trace": whole_trace,
    "groups": groups,
}

if __name__ == "__main__":
    main()
