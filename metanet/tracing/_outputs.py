"""Which tensors of what a network returns count as its output."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ._trace import tensors_in


def results(out: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses, in order.

    Of an output of transformers (``ModelOutput``) those that are its purpose: intermediate results
    that stand beside them for convenience (``encoder_last_hidden_state`` beside ``logits``, the
    outputs of inner models, caches) would count as features that must not be relabelled, and so pin
    the network's own neurons.
    """
    if not _is_model_output(out):
        return list(tensors_in(out))
    own = {name: value for name, value in out.items() if not _is_aside(name, value)}
    of_head = {name: value for name, value in own.items() if _is_of_head(name)}
    # logits; without them what is no intermediate result; without that all there is
    for outputs in (of_head, own):
        tensors = list(tensors_in(outputs))
        if tensors:
            return tensors
    return list(tensors_in(out))


def _is_of_head(name: str) -> bool:
    """Whether this is what a model with a head is for: ``logits``, ``start_logits``."""
    return name == "logits" or name.endswith("_logits")


def _is_model_output(out: Any) -> bool:
    if not isinstance(out, Mapping):
        return False
    classes = [cls.__name__ for cls in type(out).__mro__]
    return "ModelOutput" in classes


def _is_aside(name: str, value: Any) -> bool:
    if name == "last_hidden_state":
        return False
    return _is_model_output(value) or any(part in name for part in _ASIDE)


_ASIDE = ("hidden_state", "attentions", "past_key_values", "cache", "states")
