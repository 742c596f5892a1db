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
    found: dict[tuple[str, str], None] = {}
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        if key in REGISTRIES and ("." in value or ":" in value):
            found |= {(key, choice): None for choice in _choices(word) if is_own(choice)}
    yield from found


def _choices(word: str) -> list[str]:
    """The values of a word, several in a sweep; none where Hydra will refuse it anyway."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return []
    if override.is_sweep_override():
        return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
    value = override.value()
    return [value] if isinstance(value, str) else []


def _store(group: str, reference: str) -> None:
    from hydra.core.config_store import ConfigStore

    entry = registry_of(group).find(reference)
    named = _dotted(entry) if group in _BY_CLASS else reference
    key = "_target_" if group in _BY_CLASS else "name"
    ConfigStore.instance().store(
        group=group, name=reference, node={key: named, **_options(entry)}, provider="metanet-own"
    )


def _dotted(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _options(entry: Any) -> dict[str, Any]:
    """Options with their defaults; ``???`` for those that must be given."""
    options = getattr(entry, "options", None)
    if isinstance(options, Mapping):  # of methods and matchers
        return {name: default for name, default in options.items() if _is_plain(default)}
    parameters = list(inspect.signature(entry).parameters.values())
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [p for p in parameters if p.kind in by_name and p.name not in _OF_CODE]
    defaults = {p.name: "???" if p.default is p.empty else p.default for p in taken}
    return {name: default for name, default in defaults.items() if _is_plain(default)}


def _is_plain(value: Any) -> bool:
    """Whether a configuration can hold it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
