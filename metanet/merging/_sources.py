"""Which tensors the result has, and from which names of which models each is made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..errors import MetanetError
from ._inputs import Inputs
from ._layers import sliced

Slices = Sequence[Mapping[int, Sequence[int]]]


@dataclass(frozen=True)
class Source:
    """Where a tensor of the result comes from.

    Attributes:
        models: number of each model that takes part -> the name there.
        base: the name in the base.
    """

    models: Mapping[int, str]
    base: str


def sources_of(
    inputs: Inputs,
    of_module: bool,
    takes: Mapping[str, int | str],
    slices: Slices | None,
) -> dict[str, Source]:
    """Name of the result -> where its tensor comes from.

    Without slices, ``w`` is made of every model's ``w``. With ``[{0: (0, 2)}, {1: (0, 1)}]``, of
    two layers::

        result   layers.0.w   layers.1.w   layers.2.w
        made of  0: layers.0  0: layers.1  1: layers.0

    Args:
        of_module: the result has all names of the module, in its order.
        takes: pattern of names -> the model whose tensors these are.
        slices: the layers of the result.

    Raises:
        MetanetError: a slice has another form, or names a model or layers that there are not.
    """
    names = _names(inputs, of_module, takes)
    count = len(inputs.models)
    if slices is None:
        return {name: Source(dict.fromkeys(range(count), name), name) for name in names}
    spans: list[Mapping[int, tuple[int, int]]] = [
        _spans(number, slice_, count) for number, slice_ in enumerate(slices, 1)
    ]
    result = sliced(names, spans)
    return {name: Source(models, next(iter(models.values()))) for name, models in result.items()}


def tied_in_result(first: Mapping[str, str], sources: Mapping[str, Source]) -> dict[str, str]:
    """Name of the result -> the first name there of the same tensor.

    Layers that slices put elsewhere go by what is in them: of these nothing is known.
    """
    firsts: dict[str, str] = {}
    tied = {}
    for name, source in sources.items():
        in_place = set(source.models.values()) == {name}
        tied[name] = firsts.setdefault(first.get(name, name), name) if in_place else name
    return tied


def _names(inputs: Inputs, of_module: bool, takes: Mapping[str, int | str]) -> list[str]:
    """The names of the result in order: those that the checkpoint has which a tensor is like."""
    leading = inputs.first if of_module else inputs.like
    every = dict.fromkeys([*leading, *inputs.first])
    return [name for name in every if name in _holder(name, inputs, takes)]


def _holder(name: str, inputs: Inputs, takes: Mapping[str, int | str]) -> Mapping[str, Any]:
    """The checkpoint that a tensor of the result is like: the one it is taken from, or the base."""
    labels = [label for pattern, label in takes.items() if fnmatchcase(name, pattern)]
    last = labels[-1] if labels else None
    if isinstance(last, int) and 0 <= last < len(inputs.models):
        return inputs.models[last]
    return inputs.like


def _spans(number: int, given: Any, models: int) -> dict[int, tuple[int, int]]:
    """One slice: model -> its first layer and the one behind its last."""
    if not isinstance(given, Mapping) or not given:
        raise MetanetError(
            f"slice {number}: expected model: [first, behind the last], got {given!r}"
        )
    for model, span in given.items():
        if not isinstance(model, int) or not 0 <= model < models:
            raise MetanetError(
                f"slice {number}: there is no model {model!r}; give 0 to {models - 1}"
            )
        is_pair = isinstance(span, Sequence) and len(span) == 2
        if not is_pair or not all(isinstance(layer, int) for layer in span):
            raise MetanetError(
                f"slice {number}: layers of model {model}: give [first, behind the last]"
            )
    return {model: (span[0], span[1]) for model, span in given.items()}
