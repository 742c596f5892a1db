"""The command ``graph``: a checkpoint as a parameter graph, written, summed up and drawn."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._cli.folders import keep_inputs
from .._cli.tracing import make_network, trace_timed
from ..architecture import Architecture, to_graph
from ..checkpoints import (
    Checkpoint,
    check_dequantised,
    check_plain,
    load_checkpoint,
    report_nonfinite,
    settle,
    write_together,
)
from ..config import plain
from ..errors import CheckpointError, MetanetError, listed
from ..graph import GraphTemplate, byte_size, real_parts
from ..runs import write_metrics
from ..sources import in_memory

NAME = "graph"  # of the files, before their suffix

_TABLE = 64  # tensors that are listed one by one
_SHOWN = 5  # names that a line of the summary lists


def graph(cfg: Any) -> None:
    """Turn ``cfg.checkpoint`` into a parameter graph of ``cfg.arch``: write it, print what is in
    it, and draw it.

    Args:
        cfg: the composed ``conf/graph.yaml``.

    Raises:
        MetanetError: an unknown choice, files of an earlier run, a missing or unfit checkpoint, no
            such network, or a graph that is too large for the memory.
    """
    options = plain(cfg)
    files = _files(options)
    # before the network is made, which may take long
    checkpoint = load_checkpoint(
        Path(options["checkpoint"]).expanduser(),
        key=options["key"],
        foreign_classes=options["foreign_classes"],
    )
    check_dequantised(checkpoint)
    arch, model = _architecture(options)
    check_plain(checkpoint, network=arch.spec.tensors)
    state = _fitted(in_memory(checkpoint, model), arch, options)
    template = arch.graph_template(options["granularity"])
    started = time.perf_counter()
    parameter_graph = to_graph(state, arch, options["granularity"])
    seconds = time.perf_counter() - started
    tied = {name for name, tensor in arch.spec.tensors.items() if tensor.tied_to}
    once = {name: values for name, values in state.items() if name not in tied}
    bad = report_nonfinite(once)
    print(_summary(parameter_graph, template, arch, once, bad))
    _write(parameter_graph, template, files, options)
    print(f"made in {seconds:.1f} s, written:")
    for path in files:
        print(f"  {path}  {byte_size(path.stat().st_size)}")
    counts = {
        "nodes": template.num_nodes,
        "edges": template.num_edges,
        "nonfinite": sum(bad.values()),
    }
    write_metrics(Path(options["paths"]["run_dir"]), {**counts, "seconds": seconds})


def _files(options: Mapping[str, Any]) -> list[Path]:
    """What will be written; nothing of it may be there yet, unless ``overwrite``, and no input
    ever."""
    folder = Path(options["out"] or options["paths"]["run_dir"]).expanduser()
    if folder.exists() and not folder.is_dir():
        raise MetanetError(f"out={folder} is a file; give a folder")
    suffixes = [".safetensors", ".json"] if options["format"] == "safetensors" else [".pt"]
    suffixes += [".png"] if options["draw"] else []
    suffixes += [".html"] if options["html"] else []
    files = [folder / f"{NAME}{suffix}" for suffix in suffixes]
    keep_inputs(options, files)
    # by a run that was killed while its files moved to their places: this is the same
    was_stopped = settle(folder, NAME)
    present = [path.name for path in files if path.exists()]
    may_overwrite = options["overwrite"] or was_stopped
    if present and not may_overwrite:
        names = ", ".join(present)
        raise MetanetError(
            f"out={folder} has {names} already: choose another folder, or overwrite=true"
        )
    return files


def _architecture(options: Mapping[str, Any]) -> tuple[Architecture, nn.Module]:
    ref = options["arch"]
    model, examples, _ = make_network(options)
    arch, seconds = trace_timed(model, ref, examples, options["input_shape"])
    print(f"{ref}: {arch.name}, traced in {seconds:.1f} s")
    return arch, model


def _fitted(
    checkpoint: Checkpoint, arch: Architecture, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The checkpoint's tensors by the network's names.

    Raises:
        CheckpointError: names or shapes differ, or names that are one tensor in the network have
            different values.
    """
    tensors = {name: tensor for name, tensor in arch.spec.tensors.items() if not tensor.integer}
    tied = {name: tensor.tied_to for name, tensor in tensors.items() if tensor.tied_to}
    extras = [name for name in arch.graph_template().extras if name in checkpoint]
    expected = {
        **{name: _described(tensor) for name, tensor in tensors.items()},
        **{name: checkpoint.shapes[name] for name in extras},
    }
    try:
        fitted = checkpoint.fit(
            expected, prefix=options["prefix"], tied=tied, extra=options["extra"]
        )
    except CheckpointError as error:
        hint = "\n  A head of another size? Pass arch_args.num_classes=N."
        advice = hint if "shape   " in str(error) else ""
        raise CheckpointError(
            f"{error}\n  The network is arch={options['arch']}.{advice}"
        ) from error
    if fitted.skipped:
        print(
            f"left out, {len(fitted.skipped)} of the checkpoint: {listed(fitted.skipped, _SHOWN)}"
        )
    state = dict(fitted)
    for name, first in tied.items():
        if not torch.equal(state[name], state[first]):
            raise CheckpointError(
                f"checkpoint '{checkpoint.path}': {name} and {first} have different values, "
                f"but are one tensor in {options['arch']}: one of them would be lost"
            )
    return state


def _described(tensor: Any) -> Tensor:
    """A tensor of the spec by shape and dtype, without values."""
    return torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype), device="meta")


def _write(
    made: Any, template: GraphTemplate, files: list[Path], options: Mapping[str, Any]
) -> None:
    # torch-geometric and matplotlib take seconds to import
    from ..graph import draw, draw_html, save_graph

    picture = {
        "title": options["arch"],
        "max_edges": options["max_edges"],
        "max_neurons": options["max_neurons"],
    }
    with write_together(files[0].parent, NAME) as beside:
        for path in (beside / each.name for each in files):
            if path.suffix in (".safetensors", ".pt"):
                save_graph(made, template, path, structure=options["structure"])
            elif path.suffix == ".png":
                draw(made, template, path, **picture)
            elif path.suffix == ".html":
                draw_html(made, template, path, **picture)


# ---------------------------------------------------------------- the summary


def _summary(
    made: Any,
    template: GraphTemplate,
    arch: Architecture,
    state: Mapping[str, Tensor],
    bad: Mapping[str, int],
) -> str:
    nodes: Counter[str] = Counter()
    for node_range in template.nodes:
        nodes[_words(node_range.type)] += node_range.count
    edges: Counter[str] = Counter()
    constant: Counter[str] = Counter()
    for block in template.blocks:
        counter = constant if block.tensor is None else edges
        counter[_words(block.type)] += block.count
    memory = sum(v.nbytes for v in made.to_dict().values() if isinstance(v, Tensor))
    values = sum(v.nbytes for v in state.values())
    lines = [
        f"nodes     {template.num_nodes:,}: {_counts(nodes)}",
        f"edges     {template.num_edges:,}: {_counts(edges)}"
        + (f"; constant: {_counts(constant)}" if constant else ""),
        f"memory    {byte_size(memory)} as a graph, {byte_size(values)} as a checkpoint",
        f"dtypes    {_counts(Counter(str(v.dtype).removeprefix('torch.') for v in state.values()))}",
    ]
    (extras,) = made.extras or [{}]
    if extras:
        lines.append(f"extras    {len(extras)} tensors travel unchanged: {listed(extras, _SHOWN)}")
    if absent := [name for name in template.extras if name not in extras]:
        lines.append(
            f"absent    {len(absent)} buffers of the network are not in the checkpoint: "
            f"{listed(absent, _SHOWN)}"
        )
    if bad:
        counted = listed((f"{name} ({count:,})" for name, count in bad.items()), _SHOWN)
        lines.append(f"NaN, inf  {sum(bad.values()):,} values of {len(bad)} tensors: {counted}")
    else:
        lines.append("NaN, inf  none")
    lines += [f"warning   {warning}" for warning in arch.template_warnings]
    tensors = dict.fromkeys(b.tensor for b in template.blocks if b.tensor is not None)
    if len(tensors) <= _TABLE:
        lines += ["", *_table(template, state, tensors)]
    return "\n".join(lines)


def _table(
    template: GraphTemplate, state: Mapping[str, Tensor], tensors: Iterable[str]
) -> list[str]:
    """One row a tensor: between which neurons its edges run, and how large its values are."""
    rows = [("tensor", "shape", "dtype", "edges", "from", "to", "rms", "largest")]
    for name in tensors:
        blocks = [b for b in template.blocks if b.tensor == name]
        x = real_parts(state[name]).double()
        x = x[x.isfinite()]
        size = (
            (f"{float(x.square().mean().sqrt()):.3g}", f"{float(x.abs().max()):.3g}")
            if x.numel()
            else ("-", "-")
        )
        sources = _named(template, [b.source for b in blocks])
        destinations = _named(template, [b.destination for b in blocks])
        kinds = listed(dict.fromkeys(_words(b.type) for b in blocks), 3)
        dtype = str(state[name].dtype).removeprefix("torch.")
        rows.append(
            (
                name,
                "x".join(map(str, state[name].shape)) or "-",
                dtype,
                kinds,
                sources,
                destinations,
                *size,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _named(template: GraphTemplate, ranges: Iterable[int]) -> str:
    """The node ranges by name, the first two."""
    return listed(dict.fromkeys(template.nodes[number].name for number in ranges), 2)


def _words(kind: Any) -> str:
    return kind.name.lower().replace("_", " ")


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counted.items()) or "none"
