"""The merge methods by name.

A method is a function ``method(part, *, options...) -> Tensor`` in a file of its own under
``methods/``: it merges one tensor of all models. Its name in configurations, its options with their
defaults and its place in every parametrised test come from the decorator, the signature and the
docstring.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor

from ..errors import MetanetError
from ..registry import Registry

PerModel = Annotated[Any, "one number, or one for each model"]
"""An option of which every model has its own.

The caller gives one number, or one for each; methods get a list.
"""

_BASES = ("none", "optional", "required")
_NEEDS = ("arch", "model", "data", "loss")


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: in ``merge(..., method=name)``.
        function: merges one tensor of all models.
        base: ``"none"``, ``"optional"`` or ``"required"``.
        models: the least and the largest number of models besides the base; ``None``: any.
        needs: fields of :class:`Problem` that must be given.
        prepare: ``prepare(problem, *, options...)``, called once before the first tensor; what it
            returns is ``part.prepared``.
        shape: ``shape(prepared, name, shape)`` of the result, for methods that change shapes.
        shares: ``shares(prepared, options, models)``: how much each of so many models counts in the
            result, where that is not the option ``weights``; repairs have it for a goal.
        reference: where the method comes from; may be empty.
    """

    name: str
    function: Callable[..., Tensor]
    base: str
    models: tuple[int, int | None]
    needs: tuple[str, ...]
    prepare: Callable[..., Any] | None
    shape: Callable[[Any, str, torch.Size], torch.Size] | None
    shares: Callable[[Any, Mapping[str, Any], int], Sequence[float]] | None
    reference: str

    @cached_property
    def options(self) -> dict[str, Any]:
        """Options and their defaults, of the function and of ``prepare``."""
        return {name: p.default for name, p in self._parameters.items()}

    @cached_property
    def per_model(self) -> frozenset[str]:
        """Options of which every model has its own."""
        return frozenset(name for name, p in self._parameters.items() if p.annotation is PerModel)

    @cached_property
    def whole(self) -> frozenset[str]:
        """Options that ``prepare`` takes: they hold for the whole merge, not for a tensor."""
        return frozenset(_options_of(self.prepare))

    @cached_property
    def taken(self) -> frozenset[str]:
        """Options that the function itself takes."""
        return frozenset(_options_of(self.function))

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return {**_options_of(self.function), **_options_of(self.prepare)}

    @property
    def purpose(self) -> str:
        """The first line of its docstring; may be empty."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @cached_property
    def explained(self) -> dict[str, str]:
        """What its docstrings say of its options, by their names."""
        of_prepare = {} if self.prepare is None else explanations(self.prepare)
        return {**explanations(self.function), **of_prepare}

    def describe(self) -> str:
        """What it does and its options, from docstring and signature."""
        title = f"{self.name}: {self.purpose}" if self.purpose else self.name
        source = f" ({self.reference})" if self.reference else ""
        lines = [title + source]
        for name, default in self.options.items():
            several = ", one or one per model" if name in self.per_model else ""
            line = f"  {name}={default!r}{several}: {self.explained.get(name, '')}"
            lines.append(line.rstrip(": "))
        return "\n".join(lines)


METHODS: Registry[Method] = Registry(
    "merge method", package="metanet.merging.methods", group="metanet.methods"
)
"""Every method by its name."""


def method(
    name: str,
    *,
    reference: str = "",
    base: str = "none",
    models: tuple[int, int | None] = (2, None),
    needs: Sequence[str] = (),
    prepare: Callable[..., Any] | None = None,
    shape: Callable[[Any, str, torch.Size], torch.Size] | None = None,
    shares: Callable[[Any, Mapping[str, Any], int], Sequence[float]] | None = None,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Register a method; see :class:`Method` for the arguments.

    The tests of all methods pick it up by themselves.

    Raises:
        MetanetError: there is one of this name, ``base`` is none of its choices, or ``needs`` is no
            field of :class:`Problem`; or the function, or ``prepare``, takes other arguments than
            one in its place and options by name, each with a default.
    """
    if base not in _BASES:
        raise MetanetError(f"base={base!r}: give one of {', '.join(_BASES)}")
    if unknown := [field for field in needs if field not in _NEEDS]:
        raise MetanetError(
            f"method {name!r} needs {unknown[0]!r}: give some of {', '.join(_NEEDS)}"
        )

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _check_signature(name, function, "part")
        if prepare is not None:
            _check_signature(name, prepare, "problem")
        entry = Method(
            name, function, base, models, tuple(needs), prepare, shape, shares, reference
        )
        METHODS.add(name, entry)
        return function

    return register


def find_method(name: str, options: Mapping[str, Any]) -> Method:
    """A method by its name, or by the module of one's own that registers it.

    Raises:
        MetanetError: no such method, or no such option; the message lists the choices.
    """
    entry = METHODS.find(name)
    check_options(entry, options)
    return entry


def check_options(method: Method, options: Iterable[str]) -> None:
    """Raises MetanetError if a method has no such options; the message lists those it has."""
    unknown = [option for option in options if option not in method.options]
    if unknown:
        allowed = ", ".join(f"{name}={default!r}" for name, default in method.options.items())
        raise MetanetError(
            f"merge method {method.name!r} has no option {', '.join(unknown)}. Its options: "
            f"{allowed or 'none'}"
        )


def explanations(function: Callable[..., Any]) -> dict[str, str]:
    """The lines of a docstring's ``Args:`` by name."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section[1], re.MULTILINE)
    return {name: re.sub(r"\s+", " ", line) for name, line in entries}


def _check_signature(name: str, function: Callable[..., Any], first: str) -> None:
    """Refuse a function that can't be called as ``function(part, option=value)``."""
    parameters = list(inspect.signature(function).parameters.values())
    in_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    one_in_place = bool(parameters) and parameters[0].kind in in_place
    by_name = all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[1:])
    if not one_in_place or not by_name:
        raise MetanetError(
            f"method {name!r} in {function.__code__.co_filename}: {function.__name__} takes "
            f"{inspect.signature(function)}; it must take ({first}, *, option=default, ...)"
        )


def _options_of(function: Callable[..., Any] | None) -> dict[str, inspect.Parameter]:
    """The parameters that are given by name, annotations that are text evaluated."""
    if function is None:
        return {}
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except NameError:  # of what is imported for type checkers only
        parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
