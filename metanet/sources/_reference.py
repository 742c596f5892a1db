"""REF -> network. ``package.module:factory`` works now; the other schemes are recognised and say what they need."""

import importlib
import inspect
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import MetanetError

GRAMMAR = "REF is package.module:factory (also timm:NAME, hf:ID-OR-FOLDER or a folder, which are not supported yet)"

SCHEMES: dict[str, Callable[[str], Callable[..., nn.Module]]] = {}

_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"


def scheme(name: str) -> Callable:
    """Register a function ``rest -> factory`` for references ``name:rest``."""

    def register(load: Callable[[str], Callable[..., nn.Module]]) -> Callable[[str], Callable[..., nn.Module]]:
        SCHEMES[name] = load
        return load

    return register


@scheme("timm")
def _timm(name: str) -> Callable[..., nn.Module]:
    raise MetanetError(
        f"timm:{name} is not supported yet; a later version reads it with the extra hub. Until then wrap it: a "
        f"function that returns timm.create_model({name!r}) in my_networks.py, and arch=my_networks:FUNCTION."
    )


@scheme("hf")
def _hugging_face(name: str) -> Callable[..., nn.Module]:
    raise MetanetError(
        f"hf:{name} is not supported yet; a later version reads it with the extra hub. Until then wrap it: a "
        f"function that returns the transformers model in my_networks.py, and arch=my_networks:FUNCTION."
    )


def load_factory(ref: str) -> Callable[..., nn.Module]:
    """The function that makes the network which ``ref`` names.

    Args:
        ref: ``package.module:factory``: a function or class in an importable module (commands can import from the
            current folder too); ``factory`` may be dotted, ``Class.method``. The module is imported: it is code that
            the user names, so never take ``ref`` from a checkpoint.

    Raises:
        MetanetError: not of this grammar, a scheme that isn't supported yet, a module that can't be imported, or a name
            that the module hasn't (the message lists close ones).
    """
    if not isinstance(ref, str):
        raise MetanetError(f"expected a reference to a network, got {ref!r}. {GRAMMAR}.")
    name, colon, rest = ref.partition(":")
    if colon and name in SCHEMES:
        return SCHEMES[name](rest)
    if re.fullmatch(f"{_DOTTED}:{_DOTTED}", ref):
        return _attribute(_module(name, ref), rest, ref)
    if ref and Path(ref).expanduser().is_dir():
        raise MetanetError(f"{ref!r} is a folder; networks from folders are not supported yet. {GRAMMAR}.")
    raise MetanetError(f"{ref!r} names no network. {GRAMMAR}.")


def load_source(ref: str, **arch_args: Any) -> nn.Module:
    """Make the network which ``ref`` names: ``load_factory(ref)(**arch_args)``.

    Args:
        ref: see :func:`load_factory`.
        **arch_args: keyword arguments of the factory, ``arch_args.num_classes=10`` in commands.

    Raises:
        MetanetError: as :func:`load_factory`; or the factory takes other arguments, or returns no ``nn.Module``. What
            the factory itself raises passes through.
    """
    factory = load_factory(ref)
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some callables written in C have none
        signature = None
    if signature is not None:
        try:
            signature.bind(**arch_args)
        except TypeError as error:
            given = ", ".join(f"arch_args.{key}={value!r}" for key, value in arch_args.items()) or "no arch_args"
            raise MetanetError(f"{ref} can't be called with {given}: {error}. It takes {signature}.") from None
    try:
        network = factory(**arch_args)
    except TypeError as error:
        # A factory with **kwargs hands them on: whoever refuses one of ours does so deeper down.
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused is None or refused[1] not in arch_args:
            raise
        raise MetanetError(f"{ref} doesn't take arch_args.{refused[1]}: {error}. It takes {signature}.") from error
    if not isinstance(network, nn.Module):
        raise MetanetError(f"{ref} returned {type(network).__name__}, expected a torch.nn.Module")
    return network


def _module(name: str, ref: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name and not name.startswith(f"{error.name}."):
            raise MetanetError(f"{ref}: {name} needs the module {error.name}, which is not installed") from error
        raise MetanetError(
            f"{ref}: there is no module {error.name}. Install its package, or run from the folder that holds "
            f"{error.name.replace('.', '/')}.py."
        ) from error
    except Exception as error:
        raise MetanetError(f"{ref}: importing {name} failed: {type(error).__name__}: {error}") from error


def _attribute(module: Any, names: str, ref: str) -> Callable[..., nn.Module]:
    found, path = module, module.__name__
    for name in names.split("."):
        if not hasattr(found, name):
            public = [each for each in dir(found) if not each.startswith("_")]
            close = get_close_matches(name, public)
            listed = f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(public[:20]) or 'nothing'}"
            raise MetanetError(f"{ref}: {path} has no {name}; {listed}")
        found, path = getattr(found, name), f"{path}.{name}"
    if not callable(found):
        raise MetanetError(
            f"{ref}: {path} is {type(found).__name__}, expected a function or class that makes a network"
        )
    return found
