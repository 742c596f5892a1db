"""Example inputs of transformers' networks: one small function for each name among the arguments of
``forward``."""

import inspect
from typing import Any

from torch import nn

from . import _image_examples as _image_examples
from . import _series_examples as _series_examples
from . import _text_examples as _text_examples
from ._draw import INPUTS, OFFERED, Draw
from ._examples import Example, comes_from, examples_for


@examples_for(lambda model: comes_from(model, "transformers") and hasattr(model, "config"))
def _transformers(model: nn.Module) -> Example | None:
    """Random tokens, images, waveforms, ...: whatever ``forward`` takes, in the sizes that the
    configuration says."""
    first = _drawn(model, 0)
    second = _drawn(model, 1)
    if first is None or second is None:
        return None
    return Example(kwargs=first, check=((), second))


def _drawn(model: nn.Module, step: int) -> dict[str, Any] | None:
    """The arguments of ``forward`` by name; ``None`` if one that it needs is none we know."""
    parameters = inspect.signature(model.forward).parameters
    draw = Draw(model=model, step=step, parameters=parameters)
    draw.generator.manual_seed(step)
    main = getattr(model, "main_input_name", None)
    inputs: dict[str, Any] = {}
    for name, parameter in parameters.items():
        is_required = parameter.default is parameter.empty
        is_required &= parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        is_wanted = is_required or name in OFFERED or name == main
        value = INPUTS[name](draw) if name in INPUTS and is_wanted else None
        if value is not None:
            inputs[name] = value
        elif is_required:
            return None
    if not inputs:
        return None
    # A cache only adds outputs, and some models keep it on themselves.
    return {**inputs, "use_cache": False} if "use_cache" in parameters else inputs
