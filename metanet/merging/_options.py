"""What a merge is asked for: the keywords of :func:`metanet.merge`, told once."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..alignment import Alignment
from ..architecture import Architecture
from ..errors import MetanetError
from ..symmetry import SymmetrySpec

Weights = str | os.PathLike | nn.Module | Mapping[str, Tensor]
"""Paths, modules, state dicts or lazy checkpoints."""
Aligns = str | Alignment | Sequence[Alignment | None]

_COMPUTED = ("float32", "float64")
_STORED = ("float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How networks are merged: all that :func:`metanet.merge` takes besides the models.

    >>> half = Options(method="task_arithmetic", options={"weights": 0.5})
    >>> half.with_given({"weights": 0.25, "seed": 1}).options
    {'weights': 0.25}

    Attributes:
        method: a name of :data:`metanet.merging.METHODS`, or ``package.module`` of one's own.
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
            own. As keywords of :func:`metanet.merge` they stand beside the others.
    """

    method: str = "linear"
    base: Weights | None = None
    align: Aligns | None = None
    align_options: Mapping[str, Any] | None = None
    arch: Architecture | SymmetrySpec | None = None
    model: nn.Module | None = None
    data: Iterable[Any] | None = None
    loss: str | Callable[[Any, Any], Tensor] | None = None
    repair: str | None = None
    repair_passes: int | None = 1
    overrides: Mapping[str, Mapping[str, Any]] | None = None
    slices: Sequence[Mapping[int, Sequence[int]]] | None = None
    dtype: str | torch.dtype | None = None
    out_dtype: str | torch.dtype | None = None
    overflow: str = "error"
    seed: int = 0
    device: str | torch.device | None = None
    progress: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, method: "str | Options", given: Mapping[str, Any]) -> "Options":
        """The options that the keywords of :func:`metanet.merge` stand for.

        Args:
            method: a name, or options that the keywords are changes of.
            given: fields, and options of the method.
        """
        start = method if isinstance(method, Options) else cls(method=method)
        return start.with_given(given)

    def with_given(self, given: Mapping[str, Any]) -> "Options":
        """These options with some fields and options of the method changed."""
        keywords = {name: value for name, value in given.items() if name in _KEYWORDS}
        of_method = {name: value for name, value in given.items() if name not in _KEYWORDS}
        return replace(self, **keywords, options={**self.options, **of_method})

    @property
    def computed_in(self) -> torch.dtype | None:
        """``dtype`` as one of torch.

        Raises:
            MetanetError: it is none that merges compute in.
        """
        return _dtype("dtype", self.dtype, _COMPUTED)

    @property
    def stored_in(self) -> torch.dtype | None:
        """``out_dtype`` as one of torch.

        Raises:
            MetanetError: it is none that tensors are stored in.
        """
        return _dtype("out_dtype", self.out_dtype, _STORED)

    @property
    def ties(self) -> dict[str, str]:
        """Name -> the first name that it is tied to, by the architecture; empty without one."""
        if self.arch is None:
            return {}
        spec = self.arch if isinstance(self.arch, SymmetrySpec) else self.arch.spec
        return {name: tensor.tied_to for name, tensor in spec.tensors.items() if tensor.tied_to}


def signature_of(models: inspect.Parameter, result: Any) -> inspect.Signature:
    """What a function with these options for keywords takes, for ``help`` and documentation.

    Args:
        models: its first parameter.
        result: the annotation of what it returns.
    """
    names = {"method", *_KEYWORDS}
    keywords = [_parameter(option) for option in fields(Options) if option.name in names]
    others = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD, annotation=Any)
    return inspect.Signature([models, *keywords, others], return_annotation=result)


def _parameter(each: Field[Any]) -> inspect.Parameter:
    in_place = each.name == "method"
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if in_place else inspect.Parameter.KEYWORD_ONLY
    default = inspect.Parameter.empty if each.default is MISSING else each.default
    return inspect.Parameter(each.name, kind, default=default, annotation=each.type)


def _dtype(
    option: str, given: str | torch.dtype | None, choices: Sequence[str]
) -> torch.dtype | None:
    if given is None:
        return None
    name = str(given).removeprefix("torch.")
    if name not in choices:
        raise MetanetError(f"{option}={name}: give one of {', '.join(choices)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


_KEYWORDS = frozenset(option.name for option in fields(Options)) - {"method", "options"}
"""Fields that :func:`metanet.merge` takes by name; all other names are options of the method."""
