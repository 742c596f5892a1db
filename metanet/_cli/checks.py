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
    problems = mistakes(command, cfg)
    if problems:
        raise MetanetError(as_text(problems))


def as_text(problems: list[str]) -> str:
    """All mistakes as one message, of bounded length."""
    count = len(problems)
    if count == 1:
        return _cut(problems[0], _LONGEST)
    share = max(_SHORTEST, _LONGEST // count - 4)
    most = _LONGEST // (_SHORTEST + 4)
    lines = [f"{count} mistakes:"]
    lines += [f"- {_cut(problem, share)}" for problem in problems[:most]]
    if count > most:
        lines.append(f"- and {count - most} more")
    return "\n".join(lines)


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
        words = " ".join(f"{key}=VALUE" for key in missing)
        out.append(f"no value for {', '.join(missing)}: give {words}")
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


def _lacking(command: str, plain: Mapping[str, Any]) -> Iterator[str]:
    """Groups that the command has a default for, and that were taken away: ``~model``,
    ``model=null``."""
    groups = defaults_of(config.conf_dir() / f"{command}.yaml")
    for group, (name, _) in groups.items():
        is_needed = name != "null"
        if is_needed and plain.get(group) is None:
            yield f"there is no {group}: give {group}=NAME, or leave it out"


# ---------------------------------------------------------------- our own keys


def _own_keys(command: str, plain: Mapping[str, Any]) -> Iterator[str]:
    keys = {**EVERYWHERE, **BY_COMMAND.get(command, {})}
    for name, key in keys.items():
        value = _at(plain, name)
        if value == _MISSING:
            continue
        problem = _wrong(name, value, key, plain)
        if problem:
            yield problem


def _at(plain: Any, name: str) -> Any:
    """The value at a dotted key; ``"???"`` where there is none."""
    for part in name.split("."):
        if not isinstance(plain, Mapping) or part not in plain:
            return _MISSING
        plain = plain[part]
    return plain


def _wrong(name: str, value: Any, key: Key, plain: Mapping[str, Any]) -> str | None:
    """What is wrong with the value of a key: its kind, its name, or what the key's own check says."""
    if not fits(value, key.kind):
        if value is None:
            return f"no value for {name}: give {name}=VALUE"
        example = value if isinstance(value, str) else "A"
        advice = key.advice.replace("VALUE", example) or asked(key.kind)
        return f"{name}={_shown(value)}: {advice}"
    if value is None:
        return None
    if key.names is not None:
        what, _, reference = key.names.partition(" ")
        registered = _named(reference)
        choices = value if isinstance(value, list) else [value]
        for choice in choices:
            problem = unknown_choice(name, choice, registered, what)
            if problem is not None:
                return problem
    return None if key.check is None else key.check(name, value, plain)


def _named(reference: str) -> Any:
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


# ---------------------------------------------------------------- groups of registered entries


def _registered(group: str, node: Mapping[str, Any]) -> list[str]:
    """A model, method or matcher: its name, and what it takes."""
    name: Any = node.get("name")
    try:
        entry = registry_of(group).find(name)
    except MetanetError as error:
        return [f"{group}.name={name}: {error}"]
    problems = _arguments(group, node, _options(entry))
    if problems or group != "model":
        return problems
    return _model(node)


def _options(entry: Any) -> dict[str, Parameter] | None:
    """What a registered model (a class), method or matcher takes."""
    if isinstance(entry, type):
        options = dict(parameters_of(entry) or {})
        for name in _OF_CODE:
            options.pop(name, None)
        return options or None
    parameters = dict(parameters_of(entry.function) or {})
    prepare = getattr(entry, "prepare", None)
    if prepare is not None:
        parameters |= parameters_of(prepare) or {}
    takes = {name: parameters[name] for name in entry.options if name in parameters}
    per_model = getattr(entry, "per_model", None)
    if per_model is None:
        return takes
    return {name: _by_depth(option, name in per_model) for name, option in takes.items()}


def _by_depth(parameter: Parameter, per_model: bool) -> Parameter:
    """Options of methods may change with depth, ``{gradient: [0, 1]}``, and so may each model's
    own."""
    if per_model:
        return Parameter(float | dict | list[float | dict], False)
    is_number = fits(0, parameter.kind)
    return Parameter(parameter.kind | dict if is_number else parameter.kind, False)


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
        prefix = f"{where}." if where else ""
        for key, value in node.items():
            yield from _targets(value, f"{prefix}{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{where}[{index}]")


def _built(where: str, node: Mapping[str, Any]) -> list[str]:
    from hydra.utils import get_object

    target = node["_target_"]
    if _MISSING in node.values():
        return []  # told already
    package = target.partition(".")[0]
    try:
        if package in READ_ONLY:
            return _arguments(where, node, read_parameters(target))
        build({"_target_": target, "_partial_": True})  # decides whether it may be built at all
        problems = _arguments(where, node, parameters_of(get_object(target)))
        return problems or _rehearsed(where, node)
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
        if name in takes:
            problem = _unfit(key, value, takes[name].kind)
        else:
            problem = f"{key}={_shown(value)}: {_called(node)} has no {name}"
            problem += _instead(where, name, takes)
        if problem:
            out.append(problem)
    return out


def _instead(where: str, name: str, takes: Mapping[str, Parameter]) -> str:
    close = get_close_matches(name, takes, n=1)
    return f"; did you mean {where}.{close[0]}?" if close else f". It takes {', '.join(takes)}"


def _unfit(key: str, value: Any, kind: Any) -> str | None:
    """Why a value is none of its kind, or out of the bounds that :data:`RANGES` has for its key."""
    bounds = next((bounds for pattern, bounds in RANGES.items() if fnmatchcase(key, pattern)), None)
    allowed = kind if bounds is None else Annotated[kind, bounds]
    numbers = value if isinstance(value, list) else [value]
    is_within = bounds is None or all(map(bounds.holds, numbers))
    if fits(value, kind) and is_within:
        return None
    return f"{key}={_shown(value)}: give {described(allowed)}"


def _called(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_") or node.get("name")).rpartition(".")[2]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _cut(text, 80)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
