"""The command line, composed and checked before Hydra starts anything: all its mistakes, none of
its side effects.

A mistake is set aside and the rest is composed again, until it composes; then the values are
checked (``checks.py``). Of a sweep, every choice is composed once.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from . import checks, usage
from .keys import TEXT_KEYS, TEXT_LIST_KEYS, TREE_KEYS
from .overrides import is_sweep, typed, unquote
from .schema import EVERYWHERE

_UNKNOWN = re.compile(r"Could not (?:override|append to config|delete from config)\b[^']*'([^']+)'")
_SHOWN = 40  # names that a message lists
_MOST = 32  # choices of one key that are tried: of range(0,1000) the first ones and the last


def mistakes(command: str, args: Sequence[str]) -> list[str]:
    """Everything that is wrong with a prepared command line.

    Args:
        command: the primary config.
        args: as Hydra will get them; flags that make Hydra show something instead of running are
            not looked at.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from .. import config

    _, words = usage.split(args)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config.hydra_dir(), version_base="1.3"):
        try:
            return list(dict.fromkeys(_mistakes(command, words, is_sweep(list(args)))))
        finally:
            GlobalHydra.instance().clear()


def _mistakes(command: str, words: Sequence[str], sweep: bool) -> Iterator[str]:
    plain = _compose(command, [])
    keys = [*_names(plain), *(group for group in _groups(plain))]
    wrong, rest = usage.mistakes(words, keys, command)
    yield from wrong
    kept = []
    for word in rest:
        if problem := _grammar(word, sweep):
            yield problem
        else:
            kept.append(word)
    unknown: set[str] = set()
    for variant in _variants(kept):
        yield from _composed(command, variant, plain, unknown, not wrong)


def _compose(command: str, overrides: Sequence[str]) -> Any:
    from hydra import compose

    return compose(command, list(overrides), return_hydra_config=True)


def _names(cfg: Any) -> list[str]:
    return [str(key) for key in cfg if key != "hydra"]


def _groups(cfg: Any) -> dict[str, Any]:
    """The groups of the command, optional ones too, and what is chosen."""
    return {
        group: name
        for group, name in cfg.hydra.runtime.choices.items()
        if not group.startswith("hydra/")
    }


# ---------------------------------------------------------------- grammar


def _grammar(word: str, sweep: bool) -> str | None:
    """What Hydra's grammar has against a word."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    shown = typed(word)
    key, _, value = word.partition("=")
    text = unquote(value)
    if (
        key in TEXT_LIST_KEYS | TREE_KEYS
        and text[:1] in ("[", "{")
        and (reason := usage.unbalanced(text))
    ):
        return f"{shown}: {reason}"
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        reason = usage.unbalanced(value) or f"it can't be read ({str(error).splitlines()[0]})"
        return f"{shown}: {reason}; text with spaces, commas or brackets stands in quotes, 'KEY=\"TEXT\"'"
    if override.is_sweep_override() and not sweep:
        return (
            f"{shown}: choices with commas are for a sweep: add -m to run each, "
            f"or write [{value}] for a list"
        )
    return None


def _variants(words: Sequence[str]) -> Iterator[list[str]]:
    """Command lines without choices that have every choice once: ``a=1,2 b=3,4`` -> ``1 3``, ``2
    3``, ``1 4``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    choices = []
    for word in words:
        override = OverridesParser.create().parse_override(word)
        swept = override.is_sweep_override() and override.is_discrete_sweep()
        key = word.partition("=")[0]
        values = list(override.sweep_string_iterator()) if swept else []
        if len(values) > _MOST:
            values = [*values[: _MOST - 1], values[-1]]
        choices.append([f"{key}={value}" for value in values] if swept else [word])
    first = [each[0] for each in choices if each]
    yield first
    for at, each in enumerate(choices):
        for choice in each[1:]:
            yield [*first[:at], choice, *first[at + 1 :]]


# ---------------------------------------------------------------- composition


def _composed(
    command: str, words: Sequence[str], plain: Any, unknown: set[str], missing: bool
) -> Iterator[str]:
    """The mistakes of one command line without choices; unknown keys go to ``unknown``, and are
    told once."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import open_dict, read_write

    kept = [word for word in words if _key(word) not in unknown]
    while True:
        try:
            cfg = _compose(command, kept)
            break
        except HydraException as error:
            culprit, own = _culprit(command, error, kept)
            if culprit is None:
                yield _plain_text(error)
                return
            kept.remove(culprit)
            if _UNKNOWN.search(str(own)):
                unknown.add(_key(culprit))
            yield _explained(command, own, culprit, kept, plain)
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.runtime.output_dir = "."
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    yield from _unread(kept, cfg)
    yield from checks.mistakes(command, cfg, missing)


def _culprit(command: str, error: Exception, words: Sequence[str]) -> tuple[str | None, Exception]:
    """The word that an error of composition is about, the one that is named or that fails so by
    itself.

    Returns:
        The word and its error. Where no word is found, one that fails by itself with another error;
        else ``None``.
    """
    from hydra.errors import HydraException

    if named := _UNKNOWN.search(str(error)):
        for word in words:
            if _key(word) == named[1]:
                return word, error
    failing: dict[str, Exception] = {}
    for word in words:
        try:
            _compose(command, [word])
        except HydraException as own:
            if str(own) == str(error):
                return word, error
            failing[word] = own
    return next(iter(failing.items()), (None, error))


def _explained(command: str, error: Exception, word: str, kept: Sequence[str], plain: Any) -> str:
    from hydra.errors import HydraException, MissingConfigException

    key, _, value = word.lstrip("+~").partition("=")
    if isinstance(error, MissingConfigException) and error.options:
        return _unknown_choice(key, value, list(error.options), plain)
    if not (isinstance(error, MissingConfigException) or _UNKNOWN.search(str(error))):
        return f"{typed(word)}: {_plain_text(error)}"
    try:
        cfg = _compose(command, [each for each in kept if _is_choice(each, plain)])
    except HydraException:
        cfg = plain
    return _unknown_key(key, typed(word), cfg)


def _is_choice(word: str, plain: Any) -> bool:
    return _key(word) in _groups(plain)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _plain_text(error: Exception) -> str:
    """Hydra's own words, without its search path."""
    causes = [str(error), *([str(error.__cause__)] if error.__cause__ is not None else [])]
    lines = [
        line for line in "\n".join(dict.fromkeys(filter(None, causes))).splitlines() if line.strip()
    ]
    text = "; ".join(
        line.strip() for line in lines if not line.strip().startswith(("full_key:", "object_type="))
    )
    return text.partition("; Config search path:")[0] or type(error).__name__


def _unknown_choice(group: str, value: str, options: list[str], plain: Any) -> str:
    lines = [f"{group}={value}: choose from {', '.join(options[:_SHOWN])}"]
    if close := get_close_matches(value, options, n=1):
        lines.append(f"did you mean {group}={close[0]}?")
    elif elsewhere := [each for each, names in _choices(plain).items() if value in names]:
        lines.append(f"{value} is a choice of {elsewhere[0]}: {elsewhere[0]}={value}")
    elif ":" in value:
        lines.append("a network is named by arch=")
    return "; ".join(lines)


def _choices(plain: Any) -> dict[str, list[str]]:
    """What there is of every group of the command."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    return {group: loader.get_group_options(group) for group in _groups(plain)}


# ---------------------------------------------------------------- keys


def _unknown_key(key: str, shown: str, cfg: Any) -> str:
    """A key that the configuration hasn't, with what it has at that place, and where it has one of
    that name."""
    parent, allowed = _beside(cfg, key)
    last = key.rpartition(".")[2]
    lines = [f"unknown key {key!r} in {shown}"]
    lines.append(f"  {parent or 'the top level'} has: {', '.join(allowed[:_SHOWN]) or 'no keys'}")
    close = get_close_matches(key.removeprefix(f"{parent}."), allowed, n=1)
    meant = [f"{parent}.{close[0]}" if parent else close[0]] if close else []
    if meant := list(dict.fromkeys([*meant, *_alike(cfg, last)])):
        lines.append(f"  did you mean {' or '.join(meant[:4])}?")
    if elsewhere := _choices_with(parent, last):
        lines.append(
            f"  {last} is a value of {' and '.join(f'{parent}={name}' for name in elsewhere)}"
        )
    elif parent and _builds(cfg, parent):
        lines.append(f"  an argument that is not listed is added with a plus: +{shown.lstrip('+')}")
    return "\n".join(lines)


def _choices_with(group: str, key: str) -> list[str]:
    """The choices of a group that have a key at their top."""
    from ..config import conf_dirs
    from ..documents import read_yaml

    if not group:
        return []
    paths = sorted(path for folder in conf_dirs() for path in (folder / group).glob("*.yaml"))
    values = {path.stem: read_yaml(path) for path in paths}
    return [name for name, value in values.items() if isinstance(value, dict) and key in value]


def _beside(cfg: Any, key: str) -> tuple[str, list[str]]:
    """The deepest part of ``key`` that exists, and the keys it has; at the top the groups as
    well."""
    from omegaconf import DictConfig, OmegaConf

    *parents, _ = key.replace("/", ".").split(".")
    for depth in range(len(parents), 0, -1):
        parent = ".".join(parents[:depth])
        node = OmegaConf.select(
            cfg, parent, throw_on_resolution_failure=False, throw_on_missing=False
        )
        if isinstance(node, DictConfig):
            return parent, sorted(map(str, node))
    return "", sorted({*_names(cfg), *_groups(cfg)})


def _alike(cfg: Any, last: str) -> list[str]:
    """Keys anywhere below that end in this name, or have it as a word: ``epochs`` ->
    ``trainer.max_epochs``."""
    leaves = list(_leaves(cfg))
    same = [key for key in leaves if key.rpartition(".")[2] == last]
    part = [key for key in leaves if last in key.rpartition(".")[2].split("_") and key not in same]
    return [*same, *part]


def _leaves(node: Any, where: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for key in node:
        name = f"{where}.{key}" if where else str(key)
        if name in ("hydra", "paths"):
            continue
        value = node._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from _leaves(value, name)
        else:
            yield name


def _builds(cfg: Any, parent: str) -> bool:
    from omegaconf import OmegaConf

    node = OmegaConf.select(cfg, parent)
    return "_target_" in node or "name" in node


def _unread(words: Sequence[str], cfg: Any) -> Iterator[str]:
    """``+arch=...`` where ``zoo.arch`` is read: added at the top, a key of another place would be
    taken and ignored."""
    leaves = [leaf for leaf in _leaves(cfg) if "." in leaf]
    for word in words:
        key, _, value = word.partition("=")
        name = key.lstrip("+")
        meant = [leaf for leaf in leaves if leaf.rpartition(".")[2] == name]
        at_the_top = key.startswith("+") and not key.startswith("++") and "." not in name
        if at_the_top and (meant or name in TEXT_KEYS or name in EVERYWHERE):
            hint = f"; did you mean {meant[0]}={value}?" if meant else ""
            yield f"{typed(word)}: this command does not read {name}{hint}"
