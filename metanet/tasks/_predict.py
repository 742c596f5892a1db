"""Ask a trained metanetwork about one checkpoint."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from .. import nn as metanets
from ..architecture import trace
from ..checkpoints import check_plain, load_checkpoint
from ..config import build, plain
from ..errors import MetanetError
from ..graph import GraphStack
from ..sources import load_source
from ._run import MODEL
from ._task import Task


def predict(cfg: DictConfig) -> str:
    """Predict for one network what the run's metanetwork was trained to predict.

    Args:
        cfg: the composed ``conf/predict.yaml``.

    Returns:
        The prediction in words, which is printed too.

    Raises:
        MetanetError: the run has no saved model, the checkpoint does not fit ``arch``, or inputs cannot be made.
    """
    folder = Path(cfg.run) / MODEL
    if not folder.is_dir():
        raise MetanetError(f"run={cfg.run}: no finished training run (it has no folder {MODEL}/)")
    model = metanets.load(folder)
    module = load_source(cfg.arch, **plain(cfg.arch_args))
    task = restore_task(model.meta)
    example = torch.rand(max(2, model.arguments.get("probes", 0)), *_input_shape(cfg.get("input_shape"), model.meta))
    architecture = trace(module, example)
    state = load_checkpoint(cfg.checkpoint)
    check_plain(state, network=architecture.spec.tensors)
    template = architecture.template
    stacked = {name: state[name].unsqueeze(0) for name in architecture.spec.tensors if name in state}
    template.values(stacked)  # names what does not fit
    stack = GraphStack(template, template.stack(task.prepare_state(stacked)).edge_attr.float())
    if hasattr(model, "bind"):
        model.bind([architecture])
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            output = model.eval()([stack])
    else:
        output = torch.as_tensor(model.predict([stack]))
    text = task.describe(task.predict(output.float().reshape(1, -1))[0])
    print(text)
    return text


def restore_task(meta: Any) -> Task:
    """The task of a saved model, with the scale it learned."""
    task: Task = build(meta["config"]["task"])
    for name, value in meta["scale"].items():
        setattr(task, name, value)
    return task


def _input_shape(given: Any, meta: Any) -> tuple[int, ...]:
    if given is not None:
        return tuple(given)
    shapes = {tuple(s) for s in meta["input_shapes"].values()}
    if len(shapes) > 1:
        raise MetanetError(f"input_shape= is needed: the zoo had networks of inputs {sorted(shapes)}")
    return shapes.pop()
