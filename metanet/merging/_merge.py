"""The one entrance to all merge methods."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..alignment import MATCHERS, Alignment
from ..alignment import align as align_to
from ..architecture import Architecture
from ..checkpoints import Checkpoint
from ..errors import MetanetError
from ..evaluation import find_loss, repeatable, traced
from ._checks import check_call
from ._inputs import Inputs, open_inputs
from ._options import Options, Weights, signature_of
from ._part import Problem
from ._recipe import recipe_of
from ._registry import Method, find_method
from ._sources import Source, sources_of, tied_in_result
from ._tensor_options import TAKE, TensorOptions
from ._tensors import Merged, Provenance, Tensors
from .repairs import repaired

Alignments = Sequence[Alignment | None]


def merge(
    models: Sequence[Weights] | Inputs, method: str | Options = "linear", **given: Any
) -> Merged:
    """Merge two or more networks of one architecture into one, aligned first if asked for.

    Nothing is read before it is needed: the result is a checkpoint whose tensors are computed one
    by one when they are asked for, so that ``save_checkpoint("out", metanet.merge(...))`` needs the
    memory of a few tensors.

    >>> import metanet, torch
    >>> a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}
    >>> metanet.merge([a, b], weights=[0.25, 0.75])["w"]
    tensor([2.5000, 5.0000])
    >>> metanet.merge([a, b], "task_arithmetic", base={"w": torch.zeros(2)}, weights=0.5)["w"]
    tensor([2., 4.])

    Integer buffers are never averaged. Running statistics (``running_mean``, ``running_var``)
    always are, by the weights, where a method is about what models changed of a base;
    ``repair="bn_reset"`` measures them anew.

    Args:
        models: paths, state dicts, lazy checkpoints or modules; or what
            :func:`metanet.merging.open_inputs` made of them, the base included.
        method: a name of :data:`metanet.merging.METHODS`; or :class:`metanet.merging.Options`,
            which hold all that follows.
        given: the fields of :class:`metanet.merging.Options` (``base``, ``align``, ``arch``,
            ``model``,
            ``data``, ``repair``, ...), and the options of the method: one value, or a list with one
            for each model where models have their own.

    Raises:
        MetanetError: no such method, option, matcher, repair or layer, or something that one of
            them needs is missing.
        CheckpointError: a checkpoint can't be opened, or they are not of one architecture; the
            message says what differs. NaN, and integers that can't be merged, are found when their
            tensor is asked for.
    """
    options = _with_base(Options.of(method, given), models)
    entry = find_method(options.method, options.options)
    check_call(entry, models, options)
    wide, narrow = options.computed_in, options.stored_in
    takes = _takes(options)
    inputs = models if isinstance(models, Inputs) else _opened(models, options, takes)
    sources = sources_of(inputs, options.model is not None, takes, options.slices)
    first = tied_in_result(inputs.first, sources)
    by_tensor = TensorOptions(
        method=entry,
        given=options.options,
        overrides=options.overrides or {},
        models=len(inputs.models),
        names=tuple(sources),
        base=inputs.base is not None,
        first=first,
    )
    options = _completed(options, entry)
    alignments = _alignments(inputs, options)
    problem = _problem(inputs, alignments, options)
    prepared = entry.prepare and entry.prepare(problem, **by_tensor.prepared())
    shapes, dtypes = _described(sources, problem, entry, prepared, by_tensor, narrow)
    compute = Tensors(
        models=problem.models,
        base=problem.base,
        sources=sources,
        first=first,
        options=by_tensor,
        prepared=prepared,
        dtype=wide,
        dtypes=dtypes,
        shapes=shapes,
        seed=problem.seed,
        device=problem.device,
        overflow=options.overflow,
        report=problem.report,
    )
    computed = Checkpoint(Path("merged"), compute, shapes, dtypes)
    if options.repair is not None:
        computed = _repaired(computed, problem, by_tensor, prepared, options)
    passes = problem.report.get("repair/passes")
    recipe = recipe_of(entry, options, inputs, alignments, passes)
    _tell_of_ties(problem.report, inputs)
    labels = {name: by_tensor.taken(name) for name in sources}
    provenance = Provenance(
        first=first,
        dropped=inputs.dropped,
        untied=tuple(inputs.untied),
        taken={name: label for name, label in labels.items() if label is not None},
    )
    return Merged.of(computed, recipe, problem.report, alignments, provenance)


merge.__signature__ = signature_of(  # type: ignore[attr-defined]
    inspect.Parameter(
        "models",
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=Sequence[Weights] | Inputs,
    ),
    Merged,
)


# ---------------------------------------------------------------- what is given


def _with_base(options: Options, models: Any) -> Options:
    """The options with the base that opened inputs have."""
    if not isinstance(models, Inputs):
        return options
    if options.base is not None:
        raise MetanetError(
            "base=... is given twice: opened inputs have their base, from open_inputs(models, base)"
        )
    return replace(options, base=models.stored_base)


def _takes(options: Options) -> dict[str, int | str]:
    """Pattern of names -> the model whose tensors these are, as the overrides say."""
    return {
        pattern: values[TAKE]
        for pattern, values in (options.overrides or {}).items()
        if isinstance(values, Mapping) and TAKE in values
    }


def _opened(models: Sequence[Weights], options: Options, takes: Mapping[str, int | str]) -> Inputs:
    return open_inputs(models, options.base, options.model, takes=list(takes), ties=options.ties)


def _completed(options: Options, method: Method) -> Options:
    """The options with data that can be read again, the loss itself, and the architecture."""
    data = None if options.data is None else repeatable(options.data)
    loss = None if options.loss is None else find_loss(options.loss)
    arch = options.arch
    if arch is None and (isinstance(options.align, str) or "arch" in method.needs):
        if options.model is None:
            raise MetanetError(
                "aligning neurons needs the architecture: give arch=metanet.trace(...), or "
                "model=..."
            )
        arch = traced(options.model, data)
    return replace(options, data=data, loss=loss, arch=arch)


def _problem(inputs: Inputs, alignments: Alignments, options: Options) -> Problem:
    """What methods and repairs look at: models with neurons moved, network and data."""
    return Problem(
        models=_moved(inputs.models, alignments),
        base=inputs.base,
        seed=options.seed,
        device=torch.device(options.device or "cpu"),
        arch=options.arch if isinstance(options.arch, Architecture) else None,
        model=options.model,
        data=options.data,
        loss=options.loss,  # type: ignore[arg-type]
        progress=options.progress,
    )


# ---------------------------------------------------------------- neurons


def _alignments(inputs: Inputs, options: Options) -> list[Alignment | None]:
    """One for every model; empty if nothing is aligned."""
    if options.align is None:
        return []
    if isinstance(options.align, str):
        return _found(inputs, options.align, options)
    listed: list[Alignment | None] = []
    listed += [options.align] if isinstance(options.align, Alignment) else options.align
    if inputs.base is None and len(listed) == len(inputs.models) - 1:
        listed = [None, *listed]  # the first model stays
    if len(listed) != len(inputs.models):
        raise MetanetError(
            f"{len(listed)} alignments for {len(inputs.models)} models: give one for each, None "
            "for those that stay"
        )
    for alignment, checkpoint in zip(listed, inputs.models, strict=True):
        if alignment is not None:
            alignment.check(checkpoint)
    return listed


def _found(inputs: Inputs, matcher: str, options: Options) -> list[Alignment | None]:
    """What a matcher finds: models move onto the base; without one, onto the first."""
    settings: dict[str, Any] = {
        "arch": options.arch,
        "method": matcher,
        "seed": options.seed,
        "model": options.model,
        "data": options.data,
        "device": torch.device(options.device or "cpu"),
        "loss": options.loss,
        **(options.align_options or {}),
    }
    models = list(inputs.models)
    if MATCHERS.find(matcher).many:
        return [*align_to(models, to=inputs.base, **settings)]
    if inputs.base is not None:
        return [*align_to(models, to=inputs.base, **settings)]
    first, *others = models
    found: list[Alignment] = align_to(others, to=first, **settings)
    return [None, *found]


def _moved(models: Sequence[Checkpoint], alignments: Alignments) -> tuple[Checkpoint, ...]:
    """The models with their neurons moved, each tensor when it is asked for."""
    if not alignments:
        return tuple(models)
    return tuple(
        checkpoint if alignment is None else checkpoint.mapped(alignment.transform.apply)
        for checkpoint, alignment in zip(models, alignments, strict=True)
    )


# ---------------------------------------------------------------- the result


def _described(
    sources: Mapping[str, Source],
    problem: Problem,
    method: Method,
    prepared: Any,
    options: TensorOptions,
    narrow: torch.dtype | None,
) -> tuple[dict[str, torch.Size], dict[str, torch.dtype]]:
    """Shapes and dtypes of the result, by name.

    Args:
        narrow: of floating tensors; ``None``: as the base, or the first model, has each.
    """
    shapes: dict[str, torch.Size] = {}
    dtypes: dict[str, torch.dtype] = {}
    like = problem.models[0] if problem.base is None else problem.base
    for name, source in sources.items():
        label = options.taken(name)
        stored = problem.models[label] if isinstance(label, int) else like
        shape, dtype = stored.shapes[source.base], stored.dtypes[source.base]
        new = shape if method.shape is None else method.shape(prepared, name, shape)
        if label is not None and new != shape:
            raise MetanetError(
                f"overrides: {name} can't be taken as it is ({tuple(shape)}), method "
                f"{method.name!r} makes its neurons fewer or more: {tuple(new)}"
            )
        shapes[name] = new
        dtypes[name] = narrow if narrow is not None and dtype.is_floating_point else dtype
    return shapes, dtypes


def _repaired(
    computed: Checkpoint,
    problem: Problem,
    by_tensor: TensorOptions,
    prepared: Any,
    options: Options,
) -> Checkpoint:
    name = str(options.repair)
    # bn_reset has no goal that models would have a share in
    shares = [] if name == "bn_reset" else by_tensor.shares(prepared)
    return repaired(name, computed, problem, shares, options.repair_passes, options.overflow)


def _tell_of_ties(report: dict[str, Any], inputs: Inputs) -> None:
    """The same as the provenance has, for people."""
    for name in inputs.dropped:
        report[f"left out: {name}"] = "stored by some models only, twice the embedding"
    for name, text in inputs.untied.items():
        report[f"tied in some inputs only: {name}"] = text
