"""The merge methods by name.

A method is a function ``method(part, *, options...) -> Tensor`` in a file of its own under
``methods/``: it merges one tensor of all models. Its name in configurations, its options with their
defaults and its place in every parametrised test come from the decorator, the signature and the
docstring.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor

from ..alignment import find_registered
from ..errors import MetanetError

PerModel = Annotated[float | Sequence[float], "per model"]
"""An option of which every model has its own: the caller gives one number, or one for each; methods
get a list."""

_BASES = ("none", "optional", "required")


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
        """Options that hold for the whole merge, because ``prepare`` takes them: they can't vary
        with the tensor."""
        return frozenset() if self.prepare is None else frozenset(_keywords(self.prepare))

    @cached_property
    def _parameters(self) -> dict[str, inspect.Parameter]:
        return _keywords(self.function) | ({} if self.prepare is None else _keywords(self.prepare))

    @cached_property
    def taken(self) -> frozenset[str]:
        """Options that the function itself takes."""
        return frozenset(_keywords(self.function))

    def describe(self) -> str:
        """What it does and its options, from docstring and signature."""
        purpose = (inspect.getdoc(self.function) or "").partition("\n")[0]
        told = f"{self.name}: {purpose}" if purpose else self.name
        lines = [told + (f" ({self.reference})" if self.reference else "")]
        explained = {
            **explanations(self.function), **({} if self.prepare is None else explanations(self.prepare))
        }  # fmt: skip
        for name, default in self.options.items():
            each = ", one or one per model" if name in self.per_model else ""
            lines.append(f"  {name}={default!r}{each}: {explained.get(name, '')}".rstrip(": "))
        return "\n".join(lines)


METHODS: dict[str, Method] = {}
"""Every method by its name."""


def method(
    name: str, *, reference: str = "", base: str = "none", models: tuple[int, int | None] = (2, None),
    needs: Sequence[str] = (), prepare: Callable[..., Any] | None = None,
    shape: Callable[[Any, str, torch.Size], torch.Size] | None = None,
    shares: Callable[[Any, Mapping[str, Any], int], Sequence[float]] | None = None,
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:  # fmt: skip
    """Register a method; see :class:`Method` for the arguments. The tests of all methods pick it up
    by themselves.

    Raises:
        MetanetError: there is one of this name, or ``base`` is none of its choices.
    """
    if base not in _BASES:
        raise MetanetError(f"base={base!r}: give one of {', '.join(_BASES)}")

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if name in METHODS:
            raise MetanetError(
                f"two methods are named {name!r}: {METHODS[name].function.__qualname__} and {function.__qualname__}"
            )
        METHODS[name] = Method(
            name, function, base, models, tuple(needs), prepare, shape, shares, reference
        )
        return function

    return register


def find_method(name: str, options: Mapping[str, Any]) -> Method:
    """A method by its name.

    Raises:
        MetanetError: no such method, or no such option; the message lists the choices.
    """
    return find_registered(METHODS, "merge method", name, options)


def explanations(function: Callable) -> dict[str, str]:
    """The lines of a docstring's ``Args:`` by name."""
    text = inspect.getdoc(function) or ""
    found = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", found[1] if found else "", re.MULTILINE)
    return {name: re.sub(r"\s+", " ", line) for name, line in entries}


def _keywords(function: Callable) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
