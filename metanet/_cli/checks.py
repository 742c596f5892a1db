"""The whole configuration, checked before anything heavy starts: all mistakes at once.

Three sources say what is allowed: our own keys (``schema.py``), the signatures of everything that
is built by ``_target_``, and the registries of models, methods and matchers. A plugin that is in
its registry is checked like ours.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Annotated, Any

from .. import config
from ..config import build
from ..errors import MetanetError
from .help import defaults_of
from .kinds import asked, described, fits
from .own import registry_of
from .places import unknown_choice
from .schema import BY_COMMAND, EVERYWHERE, EXCLUSIVE, RANGES, Key
from .signatures import READ_ONLY, Parameter, parameters_of, read_parameters

_REGISTERED = ("model", "method", "matcher")  # by name; tasks and zoos are built by _target_
_OF_CODE = frozenset({"out_dim"})  # what a model is told by the task
_HYDRA = frozenset({"_target_", "_args_", "_partial_", "_convert_", "_recursive_", "name"})
_MISSING = "???"
_LONGEST, _SHORTEST = 1_900, 120  # characters of the whole message, and of one of many mistakes


def check(command: str, cfg: Any) -> None:
    """Refuse a configuration that can't work.

    Args:
        command: whose keys they are.
        cfg: the composed configuration.

    Raises:
        MetanetError: with all mistakes.
    """
    if found := mistakes(command, cfg):
        raise MetanetError(as_text(found))


def as_text(found: list[str]) -> str:
    """All mistakes as one message, of bounded length."""
    if len(found) == 1:
        return _cut(found[0], _LONGEST)
    share = max(_SHORTEST, _LONGEST // len(found) - 4)
    shown = [f"- {_cut(mistake, share)}" for mistake in found[: _LONGEST // (_SHORTEST + 4)]]
    if len(found) > len(shown):
        shown.append(f"- and {len(found) - len(shown)} more")
    return "\n".join([f"{len(found)} mistakes:", *shown])


def mistakes(command: str, cfg: Any, missing_too: bool = True) -> list[str]:
    """Everything that is wrong with a composed configuration, each in a message of its own.

    Args:
        command: whose keys they are.
        cfg: the composed configuration.
        missing_too: also name values that are missing; not where words of the command line could
            not be read.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        return [f"the configuration can't be resolved: {error}"]
    out = []
    if missing and missing_too:
        out.append(
            f"no value for {', '.join(missing)}: give {' '.join(f'{key}=VALUE' for key in missing)}"
        )
    out += _lacking(command, plain)
    out += _own_keys(command, plain)
    for one, other, text in EXCLUSIVE:
        if plain.get(one) is not None and plain.get(other) is not None:
            out.append(text)
    for group in _REGISTERED:
        if isinstance(plain.get(group), Mapping):
            out += _registered(group, plain[group])
    for where, node in _targets(plain):
        out += _built(where, node)
    return list(dict.fromkeys(out))


def _lacking(command: str, plain: Mapping[str, Any]) -> list[str]:
    """Groups that the command has a default for, and that were taken away: ``~model``,
    ``model=null``."""
    groups = defaults_of(config.conf_dir() / f"{command}.yaml")
    needed = [group for group, (name, _) in groups.items() if name != "null"]
    return [
        f"there is no {g}: give {g}=NAME, or leave it out" for g in needed if plain.get(g) is None
    ]


# ---------------------------------------------------------------- our own keys


def _own_keys(command: str, plain: Mapping[str, Any]) -> Iterator[str]:
    for name, key in {**EVERYWHERE, **BY_COMMAND.get(command, {})}.items():
        value = _at(plain, name)
        if value != _MISSING and (problem := _wrong(name, value, key, plain)):
            yield problem


def _at(plain: Any, name: str) -> Any:
    """The value at a dotted key; ``"???"`` where there is none."""
    for part in name.split("."):
        if not isinstance(plain, Mapping) or part not in plain:
            return _MISSING
        plain = plain[part]
    return plain


def _wrong(name: str, value: Any, key: Key, plain: Mapping[str, Any]) -> str | None:
    if not fits(value, key.kind):
        if value is None:
            return f"no value for {name}: give {name}=VALUE"
        advice = (
            key.advice.replace("VALUE", value)
            if isinstance(value, str)
            else key.advice.replace("VALUE", "A")
        )
        return f"{name}={_shown(value)}: {advice or asked(key.kind)}"
    if key.names is not None and value is not None:
        what, _, reference = key.names.partition(" ")
        registered = _named(reference)
        for choice in value if isinstance(value, list) else [value]:
            problem = unknown_choice(name, choice, registered, what)
            if problem is not None:
                return problem
    return None if key.check is None or value is None else key.check(name, value, plain)


def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


# ---------------------------------------------------------------- groups whose entries are
# registered


def _registered(group: str, node: Mapping[str, Any]) -> list[str]:
    """A model, method or matcher: its name, and what it takes."""
    name: Any = node.get("name")
    try:
        entry = registry_of(group).find(name)
    except MetanetError as error:
        return [f"{group}.name={name}: {error}"]
    takes = _options(entry)
    found = _arguments(group, node, takes)
    return found or (_model(node) if group == "model" else [])


def _options(entry: Any) -> dict[str, Parameter] | None:
    """What a registered model (a class), method or matcher takes."""
    if isinstance(entry, type):
        return {n: p for n, p in (parameters_of(entry) or {}).items() if n not in _OF_CODE} or None
    functions = [f for f in (entry.function, getattr(entry, "prepare", None)) if f is not None]
    known: dict[str, Parameter] = {}
    for function in functions:
        known |= parameters_of(function) or {}
    per_model = getattr(entry, "per_model", None)
    takes = {n: known[n] for n in entry.options if n in known}
    return (
        takes if per_model is None else {n: _by_depth(p, n in per_model) for n, p in takes.items()}
    )


def _by_depth(parameter: Parameter, per_model: bool) -> Parameter:
    """Options of methods may change with depth, ``{gradient: [0, 1]}``, and so may each model's
    own."""
    if per_model:
        return Parameter(float | dict | list[float | dict], False)
    return Parameter(parameter.kind | dict if fits(0, parameter.kind) else parameter.kind, False)


def _model(node: Mapping[str, Any]) -> list[str]:
    """What the model itself says of its arguments, without memory for its weights."""
    import torch

    from ..nn import build as build_model

    arguments = {key: value for key, value in node.items() if key != "name"}
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            build_model(node["name"], out_dim=1, **arguments)
    except MetanetError as error:
        return [str(error)]
    except (RuntimeError, TypeError, ValueError) as error:
        return [f"model={node['name']} can't be made: {error}"]
    return []


# ---------------------------------------------------------------- what is built by _target_


def _targets(node: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if isinstance(node.get("_target_"), str):
            yield where, node
        for key, value in node.items():
            yield from _targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{where}[{index}]")


def _built(where: str, node: Mapping[str, Any]) -> list[str]:
    from hydra.utils import get_object

    target = node["_target_"]
    if _MISSING in node.values():
        return []  # told already
    try:
        if target.partition(".")[0] in READ_ONLY:
            return _arguments(where, node, read_parameters(target))
        build({"_target_": target, "_partial_": True})  # decides whether it may be built at all
        return _arguments(where, node, parameters_of(get_object(target))) or _rehearsed(where, node)
    except MetanetError as error:
        return [f"{where}: {error}"]


_REHEARSED: Mapping[str, Callable[[], dict[str, Any]]] = {
    "zoo": dict,
    "task": dict,
    "optim.optimizer": lambda: _one(),
}
"""What is made to hear what it says of its arguments itself: where it stands, and what only code
knows of it."""


def _one() -> dict[str, Any]:
    import torch

    return {"params": [torch.nn.Parameter(torch.zeros(1, 1))]}


def _rehearsed(where: str, node: Mapping[str, Any]) -> list[str]:
    if where not in _REHEARSED:
        return []
    try:
        build(node, **_REHEARSED[where]())
    except MetanetError as error:
        return [str(error)]
    except (TypeError, ValueError) as error:
        return [f"{where} ({node['_target_']}): {error}"]
    return []


# ---------------------------------------------------------------- arguments


def _arguments(
    where: str, node: Mapping[str, Any], takes: Mapping[str, Parameter] | None
) -> list[str]:
    """Arguments that a signature has not, or of another kind, or out of range."""
    if takes is None:
        return []
    out = []
    for name, value in node.items():
        key = f"{where}.{name}"
        if name in _HYDRA or value == _MISSING:
            continue
        if name not in takes:
            close = get_close_matches(name, takes, n=1)
            hint = (
                f"; did you mean {where}.{close[0]}?" if close else f". It takes {', '.join(takes)}"
            )
            out.append(f"{key}={_shown(value)}: {_called(node)} has no {name}{hint}")
        elif problem := _unfit(key, value, takes[name].kind):
            out.append(problem)
    return out


def _unfit(key: str, value: Any, kind: Any) -> str | None:
    bounds = next((bounds for pattern, bounds in RANGES.items() if fnmatchcase(key, pattern)), None)
    if not fits(value, kind):
        return f"{key}={_shown(value)}: give {described(kind if bounds is None else Annotated[kind, bounds])}"
    numbers = value if isinstance(value, list) else [value]
    if bounds is not None and not all(bounds.holds(number) for number in numbers):
        return f"{key}={_shown(value)}: give {described(Annotated[kind, bounds])}"
    return None


def _called(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_") or node.get("name")).rpartition(".")[2]


def _shown(value: Any) -> str:
    text = (
        {None: "null", True: "true", False: "false"}.get(value)
        if isinstance(value, bool | None)
        else None
    )
    return _cut(text or str(value), 80)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
