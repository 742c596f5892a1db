"""The command line, composed and checked before Hydra starts anything: all its mistakes, none of
its side effects.

A mistake is set aside and the rest is composed again, until it composes; then the values are
checked (``checks.py``). Of a sweep, every choice is composed once.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
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
    wrong, candidates = usage.mistakes(words, keys, command)
    yield from wrong
    overrides = []
    for word in candidates:
        problem = _grammar(word, sweep)
        if problem is None:
            overrides.append(word)
        else:
            yield problem
    unknown: set[str] = set()
    for variant in _variants(overrides):
        yield from _composed(command, variant, plain, unknown, not wrong)


def _compose(command: str, overrides: Sequence[str]) -> Any:
    from hydra import compose

    return compose(command, list(overrides), return_hydra_config=True)


def _names(cfg: Any) -> list[str]:
    return [str(key) for key in cfg if key != "hydra"]


def _groups(cfg: Any) -> dict[str, Any]:
    """The groups of the command, optional ones too, and what is chosen."""
    choices = cfg.hydra.runtime.choices.items()
    return {group: name for group, name in choices if not group.startswith("hydra/")}


# ---------------------------------------------------------------- grammar


def _grammar(word: str, sweep: bool) -> str | None:
    """What Hydra's grammar has against a word."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    shown = typed(word)
    key, _, value = word.partition("=")
    text = unquote(value)
    if key in TEXT_LIST_KEYS | TREE_KEYS and text[:1] in ("[", "{"):
        reason = usage.unbalanced(text)
        if reason is not None:
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
    """Command lines without choices that have every choice once.

    ``a=1,2 b=3,4`` -> ``a=1 b=3``, ``a=2 b=3``, ``a=1 b=4``
    """
    choices = list(map(_choices_of, words))
    first = [words_of_one[0] for words_of_one in choices if words_of_one]
    yield first
    for at, words_of_one in enumerate(choices):
        for choice in words_of_one[1:]:
            yield [*first[:at], choice, *first[at + 1 :]]


def _choices_of(word: str) -> list[str]:
    """``a=1,2`` -> ``a=1``, ``a=2``; a word that is no sweep over choices stays as it is."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(word)
    if not override.is_discrete_sweep():
        return [word]
    key = word.partition("=")[0]
    values = list(override.sweep_string_iterator())
    if len(values) > _MOST:
        values = [*values[: _MOST - 1], values[-1]]
    return [f"{key}={value}" for value in values]


# ---------------------------------------------------------------- composition


def _composed(
    command: str, words: Sequence[str], plain: Any, unknown: set[str], missing: bool
) -> Iterator[str]:
    """The mistakes of one command line without choices; unknown keys go to ``unknown``, and are
    told once.

    It is composed until it is right; each time the word that made it fail is set aside:

        seed=1 modle=gmn zoo=nothing   ->  modle   there is no such key
        seed=1 zoo=nothing             ->  zoo     there is no such choice
        seed=1                         ->  composes: its values are checked
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import open_dict, read_write

    right = [word for word in words if _key(word) not in unknown]
    while True:
        try:
            cfg = _compose(command, right)
            break
        except HydraException as error:
            culprit, cause = _culprit(command, error, right)
            if culprit is None:
                yield _plain_text(error)
                return
            right.remove(culprit)
            if _UNKNOWN.search(str(cause)):
                unknown.add(_key(culprit))
            yield _explained(command, cause, culprit, right, plain)
    with read_write(cfg), open_dict(cfg):
        cfg.hydra.runtime.output_dir = "."
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    yield from _unread(right, cfg)
    yield from checks.mistakes(command, cfg, missing)


def _culprit(command: str, error: Exception, words: Sequence[str]) -> tuple[str | None, Exception]:
    """The word that an error of composition is about, the one that is named or that fails so by
    itself.

    Returns:
        The word and its error. Where no word is found, one that fails by itself with another error;
        else ``None``.
    """
    from hydra.errors import HydraException

    unknown = _UNKNOWN.search(str(error))
    if unknown is not None:
        for word in words:
            if _key(word) == unknown[1]:
                return word, error
    failing: dict[str, Exception] = {}
    for word in words:
        try:
            _compose(command, [word])
        except HydraException as cause:
            if str(cause) == str(error):
                return word, error
            failing[word] = cause
    return next(iter(failing.items()), (None, error))


def _explained(command: str, error: Exception, word: str, others: Sequence[str], plain: Any) -> str:
    """What is wrong with a word, in our own words where Hydra's say less.

    Args:
        others: words whose choices make the configuration whose keys are listed.
    """
    from hydra.errors import HydraException, MissingConfigException

    key, _, value = word.lstrip("+~").partition("=")
    if isinstance(error, MissingConfigException):
        if error.options:
            return _unknown_choice(key, value, list(error.options), plain)
    elif _UNKNOWN.search(str(error)) is None:
        return f"{typed(word)}: {_plain_text(error)}"
    groups = _groups(plain)
    try:
        cfg = _compose(command, [other for other in others if _key(other) in groups])
    except HydraException:
        cfg = plain
    return _unknown_key(key, typed(word), cfg)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _plain_text(error: Exception) -> str:
    """Hydra's own words, without its search path."""
    causes = [str(error)]
    if error.__cause__ is not None:
        causes.append(str(error.__cause__))
    lines = map(str.strip, "\n".join(dict.fromkeys(causes)).splitlines())
    shown = [line for line in lines if line and not line.startswith(("full_key:", "object_type="))]
    text = "; ".join(shown)
    return text.partition("; Config search path:")[0] or type(error).__name__


def _unknown_choice(group: str, value: str, options: list[str], plain: Any) -> str:
    listed = f"{group}={value}: choose from {', '.join(options[:_SHOWN])}"
    close = get_close_matches(value, options, n=1)
    if close:
        return f"{listed}; did you mean {group}={close[0]}?"
    other = next((name for name, names in _choices(plain).items() if value in names), None)
    if other is not None:
        return f"{listed}; {value} is a choice of {other}: {other}={value}"
    return f"{listed}; a network is named by arch=" if ":" in value else listed


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
    prefix = f"{parent}." if parent else ""
    close = get_close_matches(key.removeprefix(f"{parent}."), allowed, n=1)
    meant = list(dict.fromkeys([*(prefix + name for name in close), *_alike(cfg, last)]))
    lines = [f"unknown key {key!r} in {shown}"]
    lines.append(f"  {parent or 'the top level'} has: {', '.join(allowed[:_SHOWN]) or 'no keys'}")
    if meant:
        lines.append(f"  did you mean {' or '.join(meant[:4])}?")
    choices = [f"{parent}={name}" for name in _choices_with(parent, last)]
    if choices:
        lines.append(f"  {last} is a value of {' and '.join(choices)}")
    elif parent and _builds(cfg, parent):
        lines.append(f"  an argument that is not listed is added with a plus: +{shown.lstrip('+')}")
    return "\n".join(lines)


def _choices_with(group: str, key: str) -> list[str]:
    """The choices of a group that have a key at their top."""
    from ..config import conf_dirs
    from ..documents import read_yaml

    if not group:
        return []
    paths: list[Path] = []
    for folder in conf_dirs():
        paths += (folder / group).glob("*.yaml")
    values = {path.stem: read_yaml(path) for path in sorted(paths)}
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
    names = {key: key.rpartition(".")[2] for key in _leaves(cfg)}
    same = [key for key, name in names.items() if name == last]
    part = [key for key, name in names.items() if name != last and last in name.split("_")]
    return [*same, *part]


def _leaves(node: Any, where: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    prefix = f"{where}." if where else ""
    for key in node:
        name = f"{prefix}{key}"
        if name in ("hydra", "paths"):
            continue
        value = node._get_node(key)
        is_filled = isinstance(value, DictConfig) and not (value._is_none() or value._is_missing())
        if is_filled:
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
    below: dict[str, str] = {}  # the first key of each name: arch -> zoo.arch
    for leaf in _leaves(cfg):
        if "." in leaf:
            below.setdefault(leaf.rpartition(".")[2], leaf)
    for word in words:
        key, _, value = word.partition("=")
        name = key.lstrip("+")
        at_the_top = key == f"+{name}" and "." not in name
        if not at_the_top:
            continue
        if name in below:
            hint = f"; did you mean {below[name]}={value}?"
            yield f"{typed(word)}: this command does not read {name}{hint}"
        elif name in TEXT_KEYS or name in EVERYWHERE:
            yield f"{typed(word)}: this command does not read {name}"
