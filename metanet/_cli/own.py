"""Files of one's own on the command line: ``model=my.model`` without packaging.

``model=my.model model.width=3`` works as if there were a configuration file ``model/my.model.yaml``
with all options of what ``my/model.py`` registers. It is made of the signature and given to Hydra
before it composes anything; :func:`announce` does it for each word that names a module so.

Only words of the command line come here: a run that is resumed gives its own after the user has
been asked (:mod:`metanet._cli.foreign`), and recipes can't name modules at all.
"""

import importlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import MetanetError
from ..registry import Registry, is_own

REGISTRIES: Mapping[str, str] = {
    "matcher": "metanet.alignment:MATCHERS",
    "method": "metanet.merging:METHODS",
    "model": "metanet.nn:MODELS",
    "task": "metanet.tasks:TASKS",
    "zoo": "metanet.zoo:ZOOS",
}
"""The groups whose choices are registered, and where."""

_BY_CLASS = frozenset({"task", "zoo"})  # built by _target_, the others by name
_OF_CODE = frozenset({"out_dim"})  # what a model is told by the task


def registry_of(group: str) -> Registry[Any]:
    """The registry of a group."""
    module, _, name = REGISTRIES[group].partition(":")
    return getattr(importlib.import_module(module), name)


def announce(words: Iterable[str]) -> None:
    """Let Hydra know of every file of one's own that the command line names.

    Args:
        words: overrides, prepared for Hydra; of a sweep too, ``model=gmn,my.model``.

    Raises:
        MetanetError: there is no such module, it can't be imported, or what it registers isn't of
            this kind; all of them in one message.
    """
    mistakes = []
    for group, reference in _references(words):
        try:
            _store(group, reference)
        except MetanetError as error:
            mistakes.append(f"{group}={reference}: {error}")
    if mistakes:
        raise MetanetError("\n".join(mistakes))


def _references(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Group and reference of each word that names a module, once."""
    references: dict[tuple[str, str], None] = {}
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        may_name_modules = "." in value or ":" in value
        if key not in REGISTRIES or not may_name_modules:
            continue
        for choice in _choices(word):
            if is_own(choice):
                references[key, choice] = None
    yield from references


def _choices(word: str) -> list[str]:
    """The values of a word, several in a sweep; none where Hydra will refuse it anyway."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return []
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    value = None if override.is_sweep_override() else override.value()
    return [value] if isinstance(value, str) else []


def _store(group: str, reference: str) -> None:
    from hydra.core.config_store import ConfigStore

    entry = registry_of(group).find(reference)
    by_class = group in _BY_CLASS
    name = {"_target_": _dotted(entry)} if by_class else {"name": reference}
    node = {**name, **_options(entry)}
    ConfigStore.instance().store(group=group, name=reference, node=node, provider="metanet-own")


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _options(entry: Any) -> dict[str, Any]:
    """Options with their defaults; ``???`` for those that must be given."""
    options = getattr(entry, "options", None)
    if not isinstance(options, Mapping):  # of methods and matchers it is one
        options = _defaults(entry)
    return {name: default for name, default in options.items() if _is_plain(default)}


def _defaults(function: Any) -> dict[str, Any]:
    """Of what may be given by name, save what only code knows."""
    defaults: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if not by_name or parameter.name in _OF_CODE:
            continue
        is_required = parameter.default is parameter.empty
        defaults[parameter.name] = "???" if is_required else parameter.default
    return defaults


def _is_plain(value: Any) -> bool:
    """Whether a configuration can hold it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
