"""Ask a trained metanetwork about one checkpoint."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from .. import nn as metanets
from .. import trust
from ..architecture import trace
from ..checkpoints import Checkpoint, check_dequantised, load_checkpoint, report_nonfinite
from ..config import plain
from ..errors import CheckpointError, MetanetError
from ..evaluation import check_sample_shape, check_tied, fit_to
from ..graph import GraphStack
from ..sources import build_within, seeded_network
from ..zoo import ArchitectureEntry, sample_inputs
from ._run import MODEL
from ._saved import SavedRun, read_run, restore_task
from ._task import Task

_LISTED = 5  # architectures that a message shows
_SEED = 0  # of what a network draws as it is made: asked twice, a model answers the same
_LARGEST_EXAMPLE = 2**26  # numbers that are made at the word of a file


def predict(cfg: DictConfig) -> str:
    """Predict for one network what the run's metanetwork was trained to predict.

    Args:
        cfg: the composed ``conf/predict.yaml``.

    Returns:
        The prediction in words, which is printed too.

    Raises:
        MetanetError: the run has no saved model, the checkpoint fits none or several of the run's
            architectures or does not fit ``arch``, or its values are not finite.
        TrustError: the run's files name code of their author, and nobody trusts their folder.
    """
    options = plain(cfg)
    folder = Path(options["run"]).expanduser() / MODEL
    if not folder.is_dir():
        raise MetanetError(
            f"run={options['run']}: no finished training run (it has no folder {MODEL}/)"
        )
    if options.get("model_class") is not None:
        metanets.find(options["model_class"])  # imports and so registers it, at the user's word
    model = metanets.load(folder)
    run = read_run(model.meta, f"'{folder / 'model.json'}'")
    task = restore_task(run, folder)
    checkpoint = load_checkpoint(Path(options["checkpoint"]).expanduser())
    check_dequantised(checkpoint)  # before a network is made, which may take long
    network, example = _network(options, run, folder, checkpoint, max(2, _probes(model)))
    output = _ask(model, task, network, example, fit_to(network, checkpoint))
    if output.shape != (1, task.out_dim):
        raise MetanetError(
            f"{folder}: the model answers {tuple(output.shape)}, its task has {task.out_dim} outputs"
        )
    if not output.isfinite().all():
        raise MetanetError(
            f"{folder}: the model answers {output.flatten().tolist()[:5]}: its training diverged"
        )
    text = task.describe(task.predict(output)[0])
    print(text)
    return text


def _ask(
    model: metanets.Metanet, task: Task, network: nn.Module, example: Tensor, state: Checkpoint
) -> Tensor:
    """Raw output ``(1, out_dim)`` for one checkpoint, which has the network's names."""
    if broken := report_nonfinite(state):
        raise CheckpointError(
            f"checkpoint '{state.path}': {sum(broken.values()):,} values of "
            f"{', '.join(list(broken)[:5])} are NaN or infinite: there is nothing to be said of a "
            "network that diverged"
        )
    check_tied(network, state)
    architecture = trace(network, example)
    template = architecture.template
    stacked = {
        name: state[name].unsqueeze(0) for name in architecture.spec.tensors if name in state
    }
    stack = GraphStack(template, template.stack(task.prepare_state(stacked)).edge_attr.float())
    model.bind([architecture])
    return torch.as_tensor(model.predict([stack])).float().reshape(1, -1)


def _probes(model: metanets.Metanet) -> int:
    probes = model.arguments.get("probes", 0)
    return probes if isinstance(probes, int) else 0


# ------------------------------------------------------------- which network the checkpoint is of


def _network(
    options: Mapping[str, Any], run: SavedRun, folder: Path, checkpoint: Checkpoint, batch: int
) -> tuple[nn.Module, Tensor]:
    """The network, and the same example inputs of it every time.

    The inputs are those of the run's own networks, uniform in their range, and not the normal ones
    of the command ``graph``: a metanetwork with probes was trained on what networks show there.
    """
    ref = options.get("arch")
    arguments = options.get("arch_args") or {}
    shape = options.get("input_shape")
    if shape is not None:
        check_sample_shape(shape)
    if ref is None:
        if arguments:
            raise MetanetError(
                "arch_args needs arch=REF; without it the run's own architectures are tried"
            )
        ref = _only_fit(run, folder, checkpoint)
    if ref in run.architectures:
        entry = run.architectures[ref]
        network = _recorded(ref, entry, folder, checkpoint)
        if shape is None and batch * math.prod(entry.input_shape) > _LARGEST_EXAMPLE:
            raise MetanetError(
                f"{folder}: {batch} example inputs of the shape {entry.input_shape} would have more "
                f"than {_LARGEST_EXAMPLE:,} numbers. If that is right, say so: "
                f"input_shape={entry.input_shape}"
            )
        return network, sample_inputs(shape or entry.input_shape, entry.input_range, batch)
    ranges = {tuple(entry.input_range) for entry in run.architectures.values()}
    bounds = ranges.pop() if len(ranges) == 1 else (0.0, 1.0)
    example = sample_inputs(shape or _input_shape(run), bounds, batch)
    return seeded_network(ref, _SEED, False, arguments), example


def _only_fit(run: SavedRun, folder: Path, checkpoint: Checkpoint) -> str:
    """The name of the one architecture of the run that a checkpoint fits.

    Raises:
        MetanetError: none or several; lists what the run knows.
    """
    if not run.architectures:
        raise MetanetError(
            "this run did not record its architectures: give arch=REF, the network of the checkpoint"
        )
    doubtful, fitting = [], []
    reasons: dict[str, str] = {}
    for name, entry in run.architectures.items():
        try:
            fit_to(_recorded(name, entry, folder, checkpoint), checkpoint)
            fitting.append(name)
        except trust.TrustError:
            doubtful.append(entry.ref)
        except MetanetError as error:  # of another size, with other names, or refused altogether
            if len(run.architectures) == 1:
                raise
            reasons[name] = " ".join(str(error).split())
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and doubtful:
        trust.require(doubtful, folder, "the code of architectures, which would be imported")
    candidates = fitting or list(run.architectures)
    many = (
        f"fits {len(fitting)} of the architectures" if fitting else "fits none of the architectures"
    )
    lines = [
        f"  arch={_short(name, 40)}  {_called(run.architectures[name])}"
        for name in candidates[:_LISTED]
    ]
    if not fitting:
        lines = [
            f"{line}: {_short(reasons[name], 120)}"
            for line, name in zip(lines, candidates, strict=False)
        ]
    if len(candidates) > _LISTED:
        lines.append(f"  and {len(candidates) - _LISTED} more")
    listed = "\n".join(lines)
    raise MetanetError(
        f"checkpoint '{checkpoint.path}' {many} that {folder.parent} was trained on:\n{listed}\n"
        "Choose one of them, or give another network by arch=package.module:factory"
    )


def _recorded(
    name: str, entry: ArchitectureEntry, folder: Path, checkpoint: Checkpoint
) -> nn.Module:
    """A network that ``model.json`` describes, no larger than the checkpoint."""

    def make() -> nn.Module:
        return seeded_network(entry.ref, _SEED, False, entry.arch_args)

    trust.require([entry.ref], folder, "the code of an architecture, which would be imported")
    if not trust.is_open(entry.ref):
        return make()
    return build_within(make, checkpoint.shapes, f"{folder}: architecture {name!r}")


def _called(entry: ArchitectureEntry) -> str:
    return _short(
        f"{entry.ref}({', '.join(f'{key}={value}' for key, value in entry.arch_args.items())})", 80
    )


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _input_shape(run: SavedRun) -> tuple[int, ...]:
    shapes = {tuple(entry.input_shape) for entry in run.architectures.values()}
    shapes |= {tuple(shape) for shape in run.input_shapes.values()}
    if len(shapes) != 1:
        raise MetanetError(
            f"input_shape= is needed: the zoo had networks of inputs {sorted(shapes)[:10]}"
        )
    return shapes.pop()
