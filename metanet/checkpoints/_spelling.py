"""One tensor under the names that wrappers and reparametrisations give it.

=====================================  =======================================  ============================
stored or expected                     spelled here                             whose
=====================================  =======================================  ============================
``a._fsdp_wrapped_module.weight``      ``a.weight``                             FullyShardedDataParallel
``a._checkpoint_wrapped_module.bias``  ``a.bias``                               activation checkpointing
``a._orig_mod.weight``                 ``a.weight``                             torch.compile
``_forward_module.a.weight``           ``a.weight``                             Lightning
``a.module.weight``                    ``a.weight``                             DataParallel, inside
``a.base_layer.weight``                ``a.weight``                             PEFT, beside an adapter
``a.modules_to_save.default.weight``   ``a.weight``                             PEFT, a layer trained whole
``a.weight_g``                         ``a.parametrizations.weight.original0``  torch.nn.utils.weight_norm
``a.weight_v``                         ``a.parametrizations.weight.original1``
``a.weight_orig``                      ``a.parametrizations.weight.original``   torch.nn.utils.spectral_norm
``a.weight_u``                         ``a.parametrizations.weight.0._u``
``a.weight_v``                         ``a.parametrizations.weight.0._v``
=====================================  =======================================  ============================

The first four are unmistakable and come off wherever they stand (:func:`bare_names` in
``_state_dicts.py``). The others may be the names of a network's own modules, so that they only
count when a network is at hand to compare with.
"""

import re
from collections.abc import Collection, Iterable

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
_WRAPPED = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(WRAPPERS)})\.")
_POSSIBLE = re.compile(r"(?:^|(?<=\.))(?:module|base_layer|modules_to_save\.[^.]+)\.")
# The last part of a name, with those that must stand beside it -> the name since torch 2.0.
_NORMS = (
    ({"_g": "original0", "_v": "original1"}),
    ({"_orig": "original", "_u": "0._u", "_v": "0._v"}),
)


def unwrapped(name: str) -> str:
    """A name without the wrappers that are unmistakable."""
    return _WRAPPED.sub("", name)


def spelled(names: Iterable[str]) -> dict[str, str]:
    """Each name in the spelling that the names of all wrappers have in common.

    >>> spelled(["encoder.module.weight_g", "encoder.module.weight_v"])["encoder.module.weight_g"]
    'encoder.parametrizations.weight.original0'

    Returns:
        Name -> spelling; every name as it is where two would have one spelling.
    """
    names = list(names)
    together = set(names)
    spellings = {name: _POSSIBLE.sub("", unwrapped(_renormed(name, together))) for name in names}
    return (
        spellings if len(set(spellings.values())) == len(names) else {name: name for name in names}
    )


def _renormed(name: str, names: Collection[str]) -> str:
    """``a.weight_g`` beside ``a.weight_v`` is ``a.parametrizations.weight.original0``."""
    for parts in _NORMS:
        suffix = next((suffix for suffix in parts if name.endswith(suffix)), None)
        if suffix is None:
            continue
        stem = name.removesuffix(suffix)
        if all(stem + other in names for other in parts):
            module, _, parameter = stem.rpartition(".")
            return f"{module}.parametrizations.{parameter}.{parts[suffix]}".removeprefix(".")
    return name
