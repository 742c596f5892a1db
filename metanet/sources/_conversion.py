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
    plan, known = plan_loading(model, checkpoint), model.state_dict()
    own = {
        name: known[name]
        for name in plan.unsaved
        if name not in plan.names and not known[name].is_meta
    }
    if (
        not plan.steps
        and not plan.ignored
        and not own
        and all(new == old for new, old in plan.names.items())
    ):
        return checkpoint
    return _collect(checkpoint, plan, _forward(plan, checkpoint, model), known, own)


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
    plan = (
        plan_loading(model, like)
        if of_transformers(model)
        else Plan(names={name: name for name in like})
    )
    forward = _forward(plan, like, model)
    layout = Described(getattr(model, "config", None), dict(like.shapes), dict(like.dtypes))
    given = _given(tensors, model, like, plan, forward)
    stored = {old: given[new] for new, old in plan.names.items() if new in given}
    for old, name in stored.items():
        if tensors.shapes[name] != like.shapes[old]:
            raise CheckpointError(shape_error(tensors, old, tensors.shapes[name], like.shapes[old]))
    backward: dict[str, Backward] = {}
    for step in forward:
        if lacking := [name for name in step.made if name not in given]:
            if len(lacking) == len(step.made):
                continue  # the network has no use for it
            raise CheckpointError(
                f"checkpoint '{tensors.path}' has no {lacking[0]}, which {step.step.names()[0]} is made of"
            )
        back = Backward(step.step, list(step.made), tensors, given, layout)
        backward.update(dict.fromkeys(back.made, back))
    dtypes = dict(like.dtypes)
    if not cast:
        dtypes.update({old: tensors.dtypes[name] for old, name in stored.items()})
        dtypes.update({name: back.made[name].dtype for name, back in backward.items()})
    others = [name for name in like if name not in stored and name not in backward]
    reads = {name: partial(like.__getitem__, name) for name in others}
    reads |= {old: partial(tensors.__getitem__, name) for old, name in stored.items()}
    order = dict.fromkeys(
        n for name in like for n in (backward[name].made if name in backward else [name])
    )
    shapes, dtypes = (
        {name: like.shapes[name] for name in order},
        {name: dtypes[name] for name in order},
    )
    return Checkpoint(
        tensors.path, Reader(reads, backward, dtypes), shapes, dtypes, like.metadata, others
    )


def _forward(plan: Plan, stored: Checkpoint, model: nn.Module) -> list[Forward]:
    if not plan.steps:
        return []
    known = model.state_dict()
    module = Described(
        model.config, {n: t.shape for n, t in known.items()}, {n: t.dtype for n, t in known.items()}
    )
    return [Forward(step, stored, module) for step in plan.steps]


def _given(
    tensors: Checkpoint, model: nn.Module, like: Checkpoint, plan: Plan, forward: list[Forward]
) -> dict[str, str]:
    """Name that the module would have for a tensor of ``like`` -> name in ``tensors``, which a
    prefix may set apart."""
    known = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    tied = {name: first.setdefault(id(each), name) for name, each in known.items()}
    made = _collect(like, plan, forward, known, {name: known[name] for name in plan.unsaved})
    fitted = made.fit(tensors.shapes, tied=tied, extra="drop", dtypes="any")
    given = {fitted.sources[name]: name for name in reversed(list(fitted))}
    by_tie = {tied.get(name, name): name for name in reversed(list(tensors))}
    return {**{new: by_tie[tied[new]] for new in made if tied.get(new) in by_tie}, **given}


def _collect(
    given: Checkpoint,
    plan: Plan,
    steps: list[Forward],
    known: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> Checkpoint:
    """What a plan makes of a checkpoint, in the module's order, and behind it what is not the
    module's.

    Args:
        known: the module's state dict.
        own: what is taken from there.
    """
    made = {name: step for step in steps for name in step.made}
    stored = {
        **plan.names,
        **{name: name for name in plan.unknown if name not in plan.names and name not in made},
    }
    own = {name: tensor for name, tensor in own.items() if name not in stored}
    described = {**own, **{name: step.made[name] for name, step in made.items()}}
    shapes = {n: t.shape for n, t in described.items()} | {
        n: given.shapes[old] for n, old in stored.items()
    }
    dtypes = {n: t.dtype for n, t in described.items()} | {
        n: given.dtypes[old] for n, old in stored.items()
    }
    reads = {name: partial(given.__getitem__, old) for name, old in stored.items()}
    reads |= {name: partial(_copy, tensor) for name, tensor in own.items()}
    shapes = {
        n: shapes[n]
        for n in [*(n for n in known if n in shapes), *(n for n in shapes if n not in known)]
    }
    skipped = (*given.skipped, *plan.ignored)
    return Checkpoint(
        given.path,
        Reader(reads, made, dtypes),
        shapes,
        dtypes,
        given.metadata,
        skipped,
        given.foreign,
    )


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone()
