"""REF -> network: the grammar, ``package.module:factory``, and the register of the schemes beside
it."""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import MetanetError
from ..registry import Registry
from ._torchvision import import_torchvision

GRAMMAR = (
    "REF is timm:NAME, hf:ID-OR-FOLDER, package.module:factory, or a folder with a config.json"
)

Scheme = Callable[[str], Callable[..., nn.Module]]
"""What follows the colon -> a function that makes the network."""

SCHEMES: Registry[Scheme] = Registry("scheme", group="metanet.schemes")
"""Every scheme by the word before the colon."""

_DOTTED = r"[^\W\d]\w*(\.[^\W\d]\w*)*"


def scheme(name: str) -> Callable[[Scheme], Scheme]:
    """Register a function ``rest -> factory`` for references ``name:rest``.

    Raises:
        MetanetError: there is one of this name, or the function takes other arguments.
    """

    def register(load: Scheme) -> Scheme:
        needed = [p for p in inspect.signature(load).parameters.values() if p.default is p.empty]
        if len(needed) != 1 or needed[0].kind is needed[0].KEYWORD_ONLY:
            raise MetanetError(
                f"scheme {name!r}: {load.__qualname__} takes {inspect.signature(load)}; it must take "
                "one text, what follows the colon"
            )
        return SCHEMES.add(name, load)

    return register


def need_extra(module: str, ref: str) -> Any:
    """Import a package of the extra ``hub``, torchvision before it: see :func:`import_torchvision`.

    Raises:
        MetanetError: it is not installed, or a package that it needs.
    """
    try:
        import_torchvision()
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MetanetError(
            f"{ref} needs {error.name}, which is not installed: pip install 'metanet[hub]'"
        ) from error


def load_factory(ref: str) -> Callable[..., nn.Module]:
    """The function that makes the network which ``ref`` names.

    Args:
        ref: one of

            - ``timm:NAME``: a network of timm, ``NAME`` with or without a tag
              (``resnet50.a1_in1k``);
            - ``hf:ID-OR-FOLDER``: a network of transformers, by a folder with a ``config.json``, a
              repository of the Hugging Face Hub, or a model type (``hf:gpt2``), see
              ``_hugging_face.py``;
            - a folder with a ``config.json``: the same without ``hf:``;
            - ``package.module:factory``: a function or class in an importable module (commands can
              import from the current folder too); ``factory`` may be dotted, ``Class.method``. The
              module is imported: it is code that the user names, so never take ``ref`` from a
              checkpoint.

    Returns:
        A function of keyword arguments only known to it; the networks of the first three have
        random weights.

    Raises:
        MetanetError: not of this grammar, a package that isn't installed, a module that can't be
            imported, or a name that there isn't (the message lists close ones).
    """
    if not isinstance(ref, str):
        raise MetanetError(f"expected a reference to a network, got {ref!r}. {GRAMMAR}.")
    name, _, after = ref.partition(":")
    if after and (name in SCHEMES or SCHEMES.problem(name)):
        return SCHEMES.find(name)(after)
    if re.fullmatch(f"{_DOTTED}:{_DOTTED}", ref):
        return _attribute(_module(name, ref), after, ref)
    if ref and Path(ref).expanduser().is_dir():
        return SCHEMES["hf"](ref)
    raise MetanetError(f"{ref!r} names no network. {GRAMMAR}.")


def load_source(
    ref: str, *, device: str | torch.device | None = None, **arch_args: Any
) -> nn.Module:
    """Make the network which ``ref`` names: ``load_factory(ref)(**arch_args)``.

    Args:
        ref: see :func:`load_factory`.
        device: where its parameters are made; ``"meta"``: without memory and without values, for
            networks that are too large. Default: where the factory makes them.
        **arch_args: keyword arguments of the factory, ``arch_args.num_classes=10`` in commands.

    Raises:
        MetanetError: as :func:`load_factory`; or the factory takes other arguments, returns no
            ``nn.Module``, or can't do without values on the meta device. What else the factory
            itself raises passes through.
    """
    factory = load_factory(ref)
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some callables written in C have none
        signature = None
    if signature is not None:
        _check_arguments(ref, signature, arch_args)
    try:
        with torch.device(device) if device is not None else nullcontext():
            network = factory(**arch_args)
    except TypeError as error:
        # A factory with **kwargs hands them on: whoever refuses one of ours does so deeper down.
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused is None or refused[1] not in arch_args:
            raise
        takes = f". It takes {signature}" if ref.partition(":")[0] not in SCHEMES else ""
        raise MetanetError(f"{ref} doesn't take arch_args.{refused[1]}: {error}{takes}.") from error
    except (NotImplementedError, RuntimeError) as error:
        if "meta tensor" not in str(error):
            raise
        raise MetanetError(
            f"{ref} can't be made on the meta device, because it looks at values: {error}\n  Use device=cpu."
        ) from error
    if not isinstance(network, nn.Module):
        raise MetanetError(f"{ref} returned {type(network).__name__}, expected a torch.nn.Module")
    return network


def _check_arguments(ref: str, signature: inspect.Signature, arch_args: Mapping[str, Any]) -> None:
    try:
        signature.bind(**arch_args)
    except TypeError as error:
        words = [f"arch_args.{key}={value!r}" for key, value in arch_args.items()]
        arguments = ", ".join(words) or "no arch_args"
        raise MetanetError(
            f"{ref} can't be called with {arguments}: {error}. It takes {signature}."
        ) from None


def seeded_network(ref: str, seed: int, meta: bool, arch_args: Mapping[str, Any]) -> nn.Module:
    """Make the network which ``ref`` names, whose random numbers are a matter of the seed alone.

    The generators of the process stay as they are.

    Args:
        ref: see :func:`load_factory`.
        seed: of its weights, and of whatever else it draws as it is made.
        meta: make its parameters on the meta device, without values.
        arch_args: keyword arguments of the factory.

    Raises:
        MetanetError: as :func:`load_source`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Random numbers differ from device to device: weights that have values are drawn on the
        # CPU.
        return load_source(ref, device="meta" if meta else None, **arch_args)


def _module(name: str, ref: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing != name and not name.startswith(f"{missing}."):
            raise MetanetError(
                f"{ref}: {name} needs the module {missing}, which is not installed"
            ) from error
        raise MetanetError(
            f"{ref}: there is no module {missing}. Install its package, or run from the folder that "
            f"holds {missing.replace('.', '/')}.py."
        ) from error
    except Exception as error:
        raise MetanetError(
            f"{ref}: importing {name} failed: {type(error).__name__}: {error}"
        ) from error


def _attribute(module: Any, names: str, ref: str) -> Callable[..., nn.Module]:
    member = module
    path = module.__name__
    for name in names.split("."):
        if not hasattr(member, name):
            public = [attribute for attribute in dir(member) if not attribute.startswith("_")]
            close = get_close_matches(name, public)
            listed = f"it has {', '.join(public[:20]) or 'nothing'}"
            hint = f"did you mean {' or '.join(close)}?" if close else listed
            raise MetanetError(f"{ref}: {path} has no {name}; {hint}")
        member = getattr(member, name)
        path = f"{path}.{name}"
    if not callable(member):
        kind = type(member).__name__
        raise MetanetError(
            f"{ref}: {path} is {kind}, expected a function or class that makes a network"
        )
    return member
