"""The one entrance to all merge methods."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..alignment import MATCHERS, Alignment
from ..alignment import align as align_to
from ..architecture import Architecture
from ..checkpoints import Checkpoint
from ..errors import MetanetError
from ..evaluation import find_loss, repeatable, traced
from ..symmetry import SymmetrySpec
from . import methods as methods  # registers them
from ._inputs import Inputs, Weights, open_inputs, source
from ._layers import sliced
from ._merged import Merged, Provenance, Source, Tensors
from ._options import TAKE, Options
from ._part import Problem
from ._range import check_overflow
from ._registry import Method, find_method
from ._repair import check_repair, repaired

Aligns = str | Alignment | Sequence[Alignment | None]
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_OUT = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


def merge(
    models: Sequence[Weights], method: str = "linear", *, base: Weights | None = None, align: Aligns | None = None,
    align_options: Mapping[str, Any] | None = None, arch: Architecture | SymmetrySpec | None = None,
    model: nn.Module | None = None, data: Iterable[Any] | None = None,
    loss: str | Callable[[Any, Any], Tensor] | None = None, repair: str | None = None,
    repair_passes: int | None = 1,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    slices: Sequence[Mapping[int, Sequence[int]]] | None = None, dtype: str | torch.dtype | None = None,
    out_dtype: str | torch.dtype | None = None, overflow: str = "error", seed: int = 0,
    device: str | torch.device | None = None, progress: bool = False, **options: Any,
) -> Merged:  # fmt: skip
    """Merge two or more networks of one architecture into one, their neurons aligned first if asked
    for.

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
        models: paths, state dicts, lazy checkpoints or modules.
        method: a name of :data:`metanet.merging.METHODS`.
        base: what the models were fine-tuned from, for methods that look at differences; it is no
            model of the list.
        align: move neurons first: a matcher's name (every model onto the base, or without one onto
            the first model), or alignments that were found before, ``None`` for models that stay.
        align_options: of the matcher.
        arch: what :func:`metanet.trace` returned; traced from ``model`` when left out.
        model: the module, where something runs it; its names are then those of the result.
        data: batches ``(inputs, target)`` or dicts of keyword inputs, for methods, matchers and
            repairs that read them.
        loss: a name of :data:`metanet.evaluation.LOSSES` or ``loss(outputs, target)``.
        repair: of the merged network's statistics, on ``data``: ``None``, ``"bn_reset"``,
            ``"repair"``, ``"rescale"``.
        repair_passes: how often the merged network reads the data for it. Once: every layer is
            corrected by what it has seen so far, so that batches should be mixed. More, until the
            statistics are exact: ``None``.
        overrides: name pattern (``*``, ``?``) -> options for these tensors, or ``{"take": 0}`` for
            that model's own (``"base"``: the base's). Later patterns win. Every number may be
            ``{"gradient": [x0, ..., xn]}``: it changes from the first layer to the last.
        slices: the layers of the result: each slice says which layers of which models, ``{0: (0,
            8), 1: (0, 8)}``; models of one slice are merged, slices follow one another.
        dtype: to compute in: float32, or float64; by the inputs when left out.
        out_dtype: of floating tensors in the result; as the base (or first model) stores each when
            left out.
        overflow: what to do about results beyond the dtype that they are stored in: ``"error"``
            refuses them by name, ``"clip"`` stores the largest number instead, ``"keep"`` what the
            cast makes of them, infinity; ``report`` then counts them.
        seed: of everything random.
        device: where to compute; the CPU when left out.
        progress: show bars.
        options: of the method; one value, or a list with one for each model where models have their
            own.

    Raises:
        MetanetError: no such method, option, matcher, repair or layer, or something that one of
            them needs is missing.
        CheckpointError: a checkpoint can't be opened, or they are not of one architecture; the
            message says what differs. NaN, and integers that can't be merged, are found when their
            tensor is asked for.
    """
    found = find_method(method, options)
    given_too = {"model": model, "data": data, "arch": arch, "repair_passes": repair_passes}
    _check_call(found, models, base, given_too, repair, slices, align)
    check_overflow(overflow)
    device = torch.device(device or "cpu")
    wide, narrow = _dtype("dtype", dtype, tuple(_DTYPES)), _dtype("out_dtype", out_dtype, _OUT)
    takes = {
        p: each[TAKE]
        for p, each in (overrides or {}).items()
        if isinstance(each, Mapping) and TAKE in each
    }
    inputs = open_inputs(models, base, model, list(takes), _ties(arch))
    labels = [source(given, each) for given, each in zip(models, inputs.models, strict=True)]
    of_base = None if inputs.base is None else source(base, inputs.base)
    sources = _sources(_names(inputs, model, takes), slices, len(inputs.models))
    first = _tied(inputs.first, sources)
    chosen = Options(
        found, options, overrides or {}, len(inputs.models), tuple(sources), base is not None, first
    )
    data = None if data is None else repeatable(data)
    if arch is None and (isinstance(align, str) or "arch" in found.needs):
        if model is None:
            raise MetanetError(
                "aligning neurons needs the architecture: give arch=metanet.trace(...), or model=..."
            )
        arch = traced(model, data)
    report: dict[str, Any] = {}
    alignments = _alignments(
        inputs, align, arch, seed=seed, model=model, data=data, device=device,
        loss=None if loss is None else find_loss(loss), **(align_options or {}),
    )  # fmt: skip
    moved = [
        each if found_ is None else _moved(each, found_) for each, found_ in zip(inputs.models, alignments, strict=True)
    ] if alignments else list(inputs.models)  # fmt: skip
    problem = Problem(
        tuple(moved), inputs.base, seed, device, arch if isinstance(arch, Architecture) else None, model, data,
        None if loss is None else find_loss(loss), progress, report,
    )  # fmt: skip
    prepared = None if found.prepare is None else found.prepare(problem, **chosen.prepared())
    like = inputs.base or inputs.models[0]
    shapes, dtypes = {}, {}
    for name, each in sources.items():
        taken = chosen.taken(name)
        stored = like if taken in (None, "base") else moved[taken]
        shape = stored.shapes[each.base]
        shapes[name] = shape if found.shape is None else found.shape(prepared, name, shape)
        if taken is not None and shapes[name] != shape:
            raise MetanetError(
                f"overrides: {name} can't be taken as it is ({tuple(shape)}), method {method!r} makes its neurons "
                f"fewer or more: {tuple(shapes[name])}"
            )
        floating = stored.dtypes[each.base].is_floating_point
        dtypes[name] = narrow if narrow is not None and floating else stored.dtypes[each.base]
    compute = Tensors(
        moved, inputs.base, sources, first, chosen, prepared, wide, dtypes, shapes, seed, device, overflow,
        report,
    )  # fmt: skip
    computed: Checkpoint = Checkpoint(Path("merged"), compute, shapes, dtypes)
    if repair is not None:
        shares = chosen.shares(prepared) if repair != "bn_reset" else []
        computed = repaired(repair, computed, problem, shares, repair_passes, overflow)
    recipe = _recipe(
        found,
        chosen,
        labels,
        of_base,
        alignments,
        repair=repair,
        repair_passes=None if repair is None else report["repair/passes"],
        slices=slices,
        dtype=wide,
        out_dtype=narrow,
        overflow=overflow,
        seed=seed,
    )
    report.update(
        {
            f"left out: {name}": "stored by some models only, twice the embedding"
            for name in inputs.dropped
        }
    )
    report.update(
        {f"tied in some inputs only: {name}": told for name, told in inputs.untied.items()}
    )
    taken = {name: chosen.taken(name) for name in sources}
    provenance = Provenance(
        first, inputs.dropped, {n: k for n, k in taken.items() if k is not None}
    )
    return Merged.of(computed, recipe, report, alignments, provenance)


def _check_call(
    found: Method, models: Sequence[Any], base: Any, others: Mapping[str, Any], repair: str | None, slices: Any,
    align: Any,
) -> None:  # fmt: skip
    """What can be told before anything is opened."""
    least, most = found.models
    count = len(models) if isinstance(models, Sequence) and not isinstance(models, str) else 0
    if count and not slices and (count < least or (most is not None and count > most)):
        wanted = (
            f"{least}"
            if least == most
            else f"{least} or more"
            if most is None
            else f"{least} to {most}"
        )
        of = " besides the base" if found.base == "required" else ""
        raise MetanetError(f"method {found.name!r} merges {wanted} models{of}, got {count}")
    if found.base == "required" and base is None:
        raise MetanetError(
            f"method {found.name!r} merges what models changed of a base: give base=..."
        )
    if found.base == "none" and base is not None and align is None:
        raise MetanetError(
            f"method {found.name!r} has no use for a base: give it as one of the models, or leave it out"
        )
    missing = [
        n
        for n in found.needs
        if others.get(n) is None and not (n == "arch" and others["model"] is not None)
    ]
    if missing:
        raise MetanetError(f"method {found.name!r} needs {', '.join(f'{n}=...' for n in missing)}")
    if slices and (found.prepare is not None or repair is not None):
        what = f"method {found.name!r}" if found.prepare is not None else f"repair={repair!r}"
        raise MetanetError(f"{what} looks at whole networks: it can't be used with slices")
    if repair not in (None, "bn_reset") and found.shape is not None:
        raise MetanetError(
            f"repair={repair!r} compares neurons of the merged network with those of the models, and method "
            f"{found.name!r} makes other neurons of them: give repair='bn_reset'"
        )
    if repair is not None:
        check_repair(repair, others["model"], others["data"], others["repair_passes"])


def _ties(arch: Architecture | SymmetrySpec | None) -> dict[str, str]:
    """Name -> the first name that it is tied to, by the architecture."""
    if arch is None:
        return {}
    spec = arch if isinstance(arch, SymmetrySpec) else arch.spec
    return {name: known.tied_to for name, known in spec.tensors.items() if known.tied_to}


def _tied(first: Mapping[str, str], sources: Mapping[str, Source]) -> dict[str, str]:
    """Name of the result -> the first name there of the same tensor.

    Layers that slices put elsewhere go by what is in them: of these nothing is known.
    """
    known: dict[str, str] = {}
    stays = {name: set(each.models.values()) == {name} for name, each in sources.items()}
    return {
        name: known.setdefault(first.get(name, name), name) if stays[name] else name
        for name in sources
    }


def _dtype(
    what: str, given: str | torch.dtype | None, choices: Sequence[str]
) -> torch.dtype | None:
    if given is None:
        return None
    name = str(given).removeprefix("torch.")
    if name not in choices:
        raise MetanetError(f"{what}={name}: give one of {', '.join(choices)}")
    return getattr(torch, name)


def _names(inputs: Inputs, model: nn.Module | None, takes: Mapping[str, int | str]) -> list[str]:
    """Of the result's tensors, in order."""
    like = inputs.base or inputs.models[0]
    names = list(inputs.first if model is not None else like)
    out = []
    for name in dict.fromkeys([*names, *inputs.first]):
        found = [taken for pattern, taken in takes.items() if fnmatchcase(name, pattern)]
        numbered = found and isinstance(found[-1], int) and 0 <= found[-1] < len(inputs.models)
        if name in (inputs.models[found[-1]] if numbered else like):
            out.append(name)
    return out


def _sources(
    names: Sequence[str], slices: Sequence[Mapping[int, Sequence[int]]] | None, models: int
) -> dict[str, Source]:  # fmt: skip
    if slices is None:
        return {name: Source(dict.fromkeys(range(models), name), name) for name in names}
    checked = []
    for number, each in enumerate(slices):
        if not isinstance(each, Mapping) or not each:
            raise MetanetError(
                f"slice {number + 1}: expected model: [first, behind the last], got {each!r}"
            )
        for model, span in each.items():
            if not isinstance(model, int) or not 0 <= model < models:
                raise MetanetError(
                    f"slice {number + 1}: there is no model {model!r}; give 0 to {models - 1}"
                )
            if (
                not isinstance(span, Sequence)
                or len(span) != 2
                or not all(isinstance(n, int) for n in span)
            ):
                raise MetanetError(
                    f"slice {number + 1}: layers of model {model}: give [first, behind the last]"
                )
        checked.append({model: (span[0], span[1]) for model, span in each.items()})
    return {
        name: Source(where, next(iter(where.values()))) for name, where in sliced(names, checked).items()
    }  # fmt: skip


def _alignments(
    inputs: Inputs, align: Aligns | None, arch: Architecture | SymmetrySpec | None, **more: Any
) -> list[Alignment | None]:  # fmt: skip
    """One for every model; empty if nothing is aligned."""
    if align is None:
        return []
    fixed = inputs.base is None
    if not isinstance(align, str):
        given = [align] if isinstance(align, Alignment) else list(align)
        if fixed and len(given) == len(inputs.models) - 1:
            given = [None, *given]
        if len(given) != len(inputs.models):
            raise MetanetError(
                f"{len(given)} alignments for {len(inputs.models)} models: give one for each, None for those that stay"
            )
        for each, checkpoint in zip(given, inputs.models, strict=True):
            if each is not None:
                each.check(checkpoint)
        return given
    reference = inputs.base or inputs.models[0]
    if align in MATCHERS and MATCHERS[align].many:
        return align_to(list(inputs.models), to=inputs.base, arch=arch, method=align, **more)
    moving = list(inputs.models[1:] if fixed else inputs.models)
    found = align_to(moving, to=reference, arch=arch, method=align, **more)
    return [None, *found] if fixed else found


def _moved(checkpoint: Checkpoint, alignment: Alignment) -> Checkpoint:
    """Its tensors with neurons moved, each when it is asked for."""
    move = partial(_move, checkpoint, alignment)
    return Checkpoint(
        checkpoint.path, move, checkpoint.shapes, checkpoint.dtypes, checkpoint.metadata
    )


def _move(checkpoint: Checkpoint, alignment: Alignment, name: str) -> Tensor:
    return alignment.transform.apply(name, checkpoint[name])


def _recipe(
    method: Method, options: Options, models: Sequence[str], base: str | None,
    alignments: Sequence[Alignment | None], **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """All that says how the merge was made, in JSON."""
    aligned = [
        None
        if each is None
        else {"method": each.method, "options": dict(each.options), "seed": each.seed}
        for each in alignments
    ]
    recipe = {
        "method": method.name, "options": {**method.options, **options.given}, "overrides": options.overrides,
        "models": list(models), "base": base, "alignments": aligned, **more, "version": version("metanet"),
    }  # fmt: skip
    return json.loads(json.dumps(recipe, default=_plain))


def _plain(value: Any) -> Any:
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else dict(value)
