"""Checkpoints by the names of a module, where transformers names or lays out its files otherwise.

transformers renames, stacks, splits and transposes tensors while it loads a folder, and does the
reverse when it saves one: Mixtral's files have three matrices for each expert, its module has two
tensors for all. Both directions are here, tensor by tensor, by transformers' own tables.
"""

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..errors import CheckpointError
from ._conversion_steps import Backward, Forward, Reader, shape_error
from ._transformers_loading import Described, Plan, of_transformers, plan_loading


def in_memory(checkpoint: Checkpoint, model: nn.Module) -> Checkpoint:
    """A checkpoint by the names of a module, whatever its files call the tensors; no data is read.

    Tensors keep their dtypes. A tensor that is made of several stored ones reads these when it is
    asked for; what a stored tensor gives besides the one that was asked for waits for its turn, for
    the last few of them. Names that the module has no place for stay as they are, for ``fit`` to
    refuse or drop; those that transformers ignores go to ``skipped``. What transformers never
    stores, such as sinusoidal positions, is the module's own.

    Args:
        checkpoint: by the names of its files; by those of the module already, or with a prefix
            before them, it comes back as it is.
        model: the module; its values do not matter, it may be on the meta device. If it is none of
            transformers, the checkpoint comes back as it is.

    Raises:
        CheckpointError: tensors that belong together do not fit each other.
    """
    if not of_transformers(model):
        return checkpoint
    plan = plan_loading(model, checkpoint)
    entries = model.state_dict()
    unstored = [name for name in plan.unsaved if name not in plan.names]
    constants = {name: entries[name] for name in unstored if not entries[name].is_meta}
    renames = any(new != old for new, old in plan.names.items())
    if not (renames or plan.steps or plan.ignored or constants):
        return checkpoint
    return _collect(checkpoint, plan, _forward(plan, checkpoint, model), entries, constants)


def on_disk(
    tensors: Checkpoint, model: nn.Module, like: Checkpoint, *, cast: bool = True
) -> Checkpoint:
    """The reverse of :func:`in_memory`, lazily.

    Tensors by the names, shapes and dtypes of a checkpoint's files.

    What ``save_checkpoint`` writes of it, ``from_pretrained`` loads as it loaded ``like``. Names of
    ``like`` that ``tensors`` have nothing for (heads of other tasks, old buffers) keep their
    values, and ``skipped`` lists them. Tensors that are made together follow each other, so that
    writing them in order makes each once.

    Args:
        tensors: by the names of the module; tensors that are tied in it under one of their names at
            least.
        model: the module; it may be on the meta device.
        like: by the names of its files; for modules that are not of transformers too, such as one
            with a prefix.
        cast: to the dtypes of ``like``; else each has its own.

    Raises:
        CheckpointError: ``like`` is of another architecture, or its layout can't be made again of
            the module's tensors.
    """
    if of_transformers(model):
        plan = plan_loading(model, like)
    else:
        plan = Plan(names={name: name for name in like})
    forward = _forward(plan, like, model)
    layout = Described(getattr(model, "config", None), dict(like.shapes), dict(like.dtypes))
    names = _by_layout(tensors, model, like, plan, forward)
    # stored name -> name in ``tensors``, of what is written as it is
    stored = {old: names[new] for new, old in plan.names.items() if new in names}
    for old, name in stored.items():
        if tensors.shapes[name] != like.shapes[old]:
            raise CheckpointError(shape_error(tensors, old, tensors.shapes[name], like.shapes[old]))
    backward = _backward(tensors, forward, names, layout)
    dtypes = dict(like.dtypes)
    if not cast:
        dtypes |= {old: tensors.dtypes[name] for old, name in stored.items()}
        dtypes |= {name: step.made[name].dtype for name, step in backward.items()}
    others = [name for name in like if name not in stored and name not in backward]
    reads = {name: partial(like.__getitem__, name) for name in others}
    reads |= {old: partial(tensors.__getitem__, name) for old, name in stored.items()}
    order: dict[str, None] = {}
    for name in like:
        together = backward[name].made if name in backward else [name]
        order |= dict.fromkeys(together)
    shapes = {name: like.shapes[name] for name in order}
    dtypes = {name: dtypes[name] for name in order}
    read = Reader(reads, backward, dtypes)
    return Checkpoint(tensors.path, read, shapes, dtypes, like.metadata, others)


def _forward(plan: Plan, stored: Checkpoint, model: nn.Module) -> list[Forward]:
    if not plan.steps:
        return []
    entries = model.state_dict()
    shapes = {name: tensor.shape for name, tensor in entries.items()}
    dtypes = {name: tensor.dtype for name, tensor in entries.items()}
    module = Described(model.config, shapes, dtypes)
    return [Forward(step, stored, module) for step in plan.steps]


def _backward(
    tensors: Checkpoint, forward: list[Forward], names: Mapping[str, str], layout: Described
) -> dict[str, Backward]:
    """The step that makes each stored tensor again which is not written as it is.

    Args:
        names: name of the module -> name in ``tensors``.
        layout: of the files.
    """
    backward: dict[str, Backward] = {}
    for step in forward:
        lacking = [name for name in step.made if name not in names]
        if len(lacking) == len(step.made):
            continue  # the network has no use for it
        if lacking:
            part = step.step.names()[0]
            raise CheckpointError(
                f"checkpoint '{tensors.path}' has no {lacking[0]}, which {part} is made of"
            )
        back = Backward(step.step, list(step.made), tensors, names, layout)
        backward.update(dict.fromkeys(back.made, back))
    return backward


def _by_layout(
    tensors: Checkpoint, model: nn.Module, like: Checkpoint, plan: Plan, forward: list[Forward]
) -> dict[str, str]:
    """Name that the module would have for a tensor of ``like`` -> name in ``tensors``, which a
    prefix may set apart.

    A name that ``tensors`` lack stands for the one that it is tied to:

        like                          module             tensors
        model.embed_tokens.weight ->  embed_tokens  ->   embed_tokens
        lm_head.weight            ->  lm_head       ->   embed_tokens, of which it is another name
    """
    entries = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    tied = {name: first.setdefault(id(tensor), name) for name, tensor in entries.items()}
    constants = {name: entries[name] for name in plan.unsaved}
    converted = _collect(like, plan, forward, entries, constants)
    fitted = converted.fit(tensors.shapes, tied=tied, extra="drop", dtypes="any")
    direct = {fitted.sources[name]: name for name in reversed(list(fitted))}
    by_tie = {tied.get(name, name): name for name in reversed(list(tensors))}
    indirect = {new: by_tie[tied[new]] for new in converted if tied.get(new) in by_tie}
    return {**indirect, **direct}


def _collect(
    checkpoint: Checkpoint,
    plan: Plan,
    steps: list[Forward],
    entries: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
) -> Checkpoint:
    """What a plan makes of a checkpoint, in the module's order, and behind it what is not the
    module's.

    Args:
        entries: the module's state dict.
        constants: what is taken from there.
    """
    converted = {name: step for step in steps for name in step.made}
    stored = dict(plan.names)
    for name in plan.unknown:
        if name not in converted:
            stored.setdefault(name, name)
    constants = {name: tensor for name, tensor in constants.items() if name not in stored}
    described = dict(constants)
    described |= {name: step.made[name] for name, step in converted.items()}
    shapes = {name: tensor.shape for name, tensor in described.items()}
    shapes |= {name: checkpoint.shapes[old] for name, old in stored.items()}
    dtypes = {name: tensor.dtype for name, tensor in described.items()}
    dtypes |= {name: checkpoint.dtypes[old] for name, old in stored.items()}
    reads = {name: partial(checkpoint.__getitem__, old) for name, old in stored.items()}
    reads |= {name: partial(_copy, tensor) for name, tensor in constants.items()}
    order = [*(name for name in entries if name in shapes), *shapes]
    return Checkpoint(
        checkpoint.path,
        Reader(reads, converted, dtypes),
        {name: shapes[name] for name in order},
        dtypes,
        checkpoint.metadata,
        (*checkpoint.skipped, *plan.ignored),
        checkpoint.foreign,
    )


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()
