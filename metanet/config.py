"""The one place that builds objects from configuration, which is what the user types: files name
registered things.

(What a file may name is decided in :mod:`metanet.trust`.) Still, configurations are passed around,
so a ``_target_`` is input like any other: it is built only if it names a class in a package that
metanet trusts, and only if that really lives there (``metanet.config.os.system`` does not).
Functions and methods are refused: ``metanet.zoo.Population.build`` imports what its instance says.
Hydra's own list of forbidden targets is a second net, not the first.
"""

import difflib
import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import plugins
from .errors import MetanetError
from .registry import named_modules

TRUSTED = (
    "metanet.",
    "torch.optim.",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.trainer.",
    "lightning.pytorch.callbacks.",
    "lightning.pytorch.loggers.",
    "lightning.pytorch.profilers.",
    "lightning.pytorch.strategies.",
)
"""What configurations may build, by the starts of dotted names."""

REFUSED = (
    "metanet.sources",
    "metanet.checkpoints",
    "metanet.config",
    "metanet.trust",
    "metanet.cli",
    "metanet.tasks.train",
    "metanet.tasks.predict",
)
"""What runs, or writes to, whatever its arguments name: never built."""

TRUSTED_VARIABLE = "METANET_TRUSTED"
"""The variable with packages of the user's own, e.g. ``METANET_TRUSTED="mylab,mylab_models"``."""

_HYDRA_KEYS = frozenset({"_target_", "_args_", "_partial_", "_convert_", "_recursive_"})


def conf_dir() -> Path:
    """The folder of configuration files.

    It lies inside the package in an installed wheel, beside it in a checkout.

    Raises:
        MetanetError: neither place has it.
    """
    here = Path(__file__).resolve().parent
    places = (here / "conf", here.parent / "conf")
    for place in places:
        if (place / "train.yaml").is_file():
            return place
    looked = " and ".join(map(str, places))
    raise MetanetError(
        f"metanet's configuration (conf/train.yaml) is missing: looked in {looked}. Install metanet again."
    )


def conf_dirs() -> tuple[Path, ...]:
    """Every folder of configuration files: metanet's own first, then those of plugins."""
    return (conf_dir(), *plugins.conf_folders())


def conf_file(group: str, name: str) -> Path | None:
    """The file that ``group=name`` chooses; ``None`` if there is none.

    >>> conf_file("matcher", "weight").name, conf_file("matcher", "none_of_this_name")
    ('weight.yaml', None)
    """
    paths = (folder / group / f"{name}.yaml" for folder in conf_dirs())
    return next((path for path in paths if path.is_file()), None)


def hydra_dir() -> str:
    """What Hydra is to be given as its folder of configuration files; it knows of the plugins' then."""
    plugins.extend_search_path()
    return str(conf_dir())


def plain(cfg: Any) -> Any:
    """``cfg`` as dicts, lists and values: every ``${interpolation}`` resolved, nothing left open.

    Args:
        cfg: an OmegaConf config, or what is plain already.

    Raises:
        MetanetError: required values (``???``) are missing, or an interpolation can't be resolved;
            names the keys.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if not missing:
            return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise MetanetError(f"the configuration can't be resolved: {error}") from error
    raise MetanetError(
        f"no value for {', '.join(missing)}: give {' '.join(f'{key}=VALUE' for key in missing)}"
    )


def build(node: Any, **kwargs: Any) -> Any:
    """Call what ``node`` names by ``_target_``.

    The rest of ``node`` and ``kwargs`` are its keyword arguments.

    Nested nodes with a ``_target_`` are built first. Lists and dicts arrive as plain Python.
    ``kwargs`` are handed over as they are, win over ``node``, and are code's own: they are not
    searched for targets.

    Args:
        node: a mapping with ``_target_``, e.g. ``cfg.optim.optimizer``; Hydra's ``_partial_: true``
            gives a partial.
        **kwargs: what only code knows, e.g. ``params=model.parameters()``.

    Returns:
        What the target returns.

    Raises:
        MetanetError: no target, a target outside the trusted packages (nothing is imported or
            called then), a target that doesn't exist, or arguments that it doesn't take.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    node = plain(node)
    if not isinstance(node, Mapping) or "_target_" not in node:
        content = (
            f"the keys {', '.join(map(str, node))}" if isinstance(node, Mapping) else repr(node)
        )
        raise MetanetError(f"nothing to build: expected a mapping with _target_, got {content}")
    _refuse_late_interpolation(node)
    targets = list(_targets(node))
    for where, inner in targets:
        _check_name(inner["_target_"], where)
    for where, inner in targets:
        _check_call(
            _locate(inner["_target_"], where), inner, kwargs if inner is node else {}, where
        )

    # A partial, so that kwargs never pass through OmegaConf, which copies, converts and refuses
    # objects.
    try:
        call = instantiate({"_convert_": "all", **node, "_partial_": True})
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None:
            raise MetanetError(str(error)) from error
        cause.add_note(f"while building {node['_target_']}")
        raise cause from None
    if node.get("_partial_"):
        return functools.partial(call, **kwargs)
    return call(**kwargs)


def _targets(node: Any, where: str = "") -> Iterator[tuple[str, Mapping]]:
    """Every mapping with a ``_target_`` in ``node`` and where it stands, outermost first."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield where, node
        for key, value in node.items():
            yield from _targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _targets(value, f"{where}[{index}]")


def _refuse_late_interpolation(node: Any) -> None:
    """Hydra resolves once more while it builds: an escaped ``${...}`` could bring in a target after
    the check."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            _refuse_late_interpolation(key)
            _refuse_late_interpolation(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _refuse_late_interpolation(value)
    elif isinstance(node, str) and "${" in node:
        raise MetanetError(
            f"the value {node!r} still holds an interpolation (${{...}}) after resolving; remove it"
        )


def _trusted() -> tuple[str, ...]:
    """Ours, those that the user names, plugins that the user has installed, and modules that the user
    named on the command line."""
    extra = [name.strip().rstrip(".") for name in os.environ.get(TRUSTED_VARIABLE, "").split(",")]
    packages = dict.fromkeys([*extra, *plugins.trusted(), *sorted(named_modules())])
    return TRUSTED + tuple(f"{name}." for name in packages if name)


def _is_trusted(name: str) -> bool:
    if any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED):
        return False
    return _is_named(name, _trusted())


def _is_named(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(
        name.startswith(prefix) if prefix.endswith(".") else name == prefix for prefix in prefixes
    )


def _check_name(target: Any, where: str) -> None:
    # Public names only: REFUSED can't be passed by through the private module that defines a
    # function.
    if (
        isinstance(target, str)
        and _is_trusted(target)
        and not any(part.startswith("_") for part in target.split("."))
    ):
        return
    raise MetanetError(
        f"refused to build _target_ {target!r}{_at(where)}: configurations may only name public "
        f"classes and functions under {', '.join(_trusted())} (except {', '.join(REFUSED)}). "
        f"Is it a package of your own that you trust? Set {TRUSTED_VARIABLE}=PACKAGE."
    )


def _locate(target: str, where: str) -> Callable:
    """What the dotted name stands for; it must be callable and be defined in a trusted package
    too."""
    package, *names = target.split(".")
    path = package
    member = importlib.import_module(package)
    for name in names:
        try:
            member = getattr(member, name)
        except AttributeError as error:
            try:
                member = importlib.import_module(f"{path}.{name}")
            except ModuleNotFoundError as missing:
                if missing.name != f"{path}.{name}":
                    # the module is there and imports what is not: its own traceback says where
                    raise
                close = difflib.get_close_matches(name, dir(member))
                hint = (
                    f"; did you mean {' or '.join(f'{path}.{choice}' for choice in close)}?"
                    if close
                    else ""
                )
                raise MetanetError(
                    f"_target_ {target!r}{_at(where)} does not exist{hint}"
                ) from error
        path = f"{path}.{name}"
    if not callable(member):
        raise MetanetError(
            f"_target_ {target!r}{_at(where)} is no class or function, it is {member!r}"
        )
    home = f"{getattr(member, '__module__', None)}.{getattr(member, '__qualname__', None)}"
    if not _is_trusted(home):
        raise MetanetError(
            f"refused to build _target_ {target!r}{_at(where)}: it leads to {home}, which is not trusted"
        )
    if not isinstance(member, type) and _is_named(target, TRUSTED):
        raise MetanetError(
            f"refused to build _target_ {target!r}{_at(where)}: it is a function or a method, "
            "and configurations name classes. A function of your own package is built where "
            f"{TRUSTED_VARIABLE}=PACKAGE says so"
        )
    return member


def _check_call(target: Callable, node: Mapping, kwargs: Mapping, where: str) -> None:
    """Name wrong and missing arguments before anything is built."""
    try:
        signature = inspect.signature(target)
    except ValueError:  # some callables written in C have none
        return
    arguments = {key: value for key, value in node.items() if key not in _HYDRA_KEYS} | {**kwargs}
    bind = signature.bind_partial if node.get("_partial_") else signature.bind
    try:
        bind(*node.get("_args_", ()), **arguments)
    except TypeError as error:
        parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        takes = ", ".join(
            p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters
        )
        names = [p.name for p in parameters]
        unknown = (
            [key for key in arguments if key not in names]
            if len(names) == len(signature.parameters)
            else []
        )
        hints = {key: difflib.get_close_matches(key, names, n=1) for key in unknown}
        problems = [
            f"it has no {key!r}" + (f" (did you mean {c[0]!r}?)" if c else "")
            for key, c in hints.items()
        ]
        raise MetanetError(
            f"{node['_target_']}{_at(where)} can't be called: {', '.join(problems) or error}. "
            f"It takes ({takes})."
        ) from None


def _at(where: str) -> str:
    return f" at {where!r}" if where else ""
