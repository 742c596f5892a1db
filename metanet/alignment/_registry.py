"""The matchers by name.

A matcher is a function ``matcher(problem, *, options...) -> Match`` in a file of its own. Its name
in configurations, its options with their defaults and its place in every parametrised test come
from the decorator and the signature.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import MetanetError
from ..registry import Registry
from ..symmetry import SymmetrySpec, Transform

Needed = TypeVar("Needed")


@dataclass(frozen=True)
class Problem:
    """What a matcher is given.

    Attributes:
        spec: the symmetries.
        reference: the checkpoint that stays; ``None`` for matchers of many when none does.
        moving: the checkpoints to be moved: one, except for matchers of many.
        seed: of everything random.
        device: where to compute.
        arch: the architecture, when there is more than a spec.
        model: the module, for matchers that run it.
        data: batches, for matchers that read them.
        loss: of outputs and target, for matchers that need one.
    """

    spec: SymmetrySpec
    reference: Mapping[str, Tensor] | None
    moving: Sequence[Mapping[str, Tensor]]
    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    arch: Architecture | None = None
    model: nn.Module | None = None
    data: Iterable[Any] | None = None
    loss: Callable[[Any, Any], Tensor] | None = None

    @property
    def pair(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The checkpoint that stays, and the one to be moved; where both must be there."""
        return self._needed(self.reference, "to"), self.moving[0]

    @property
    def architecture(self) -> Architecture:
        """The architecture, where it must be there."""
        return self._needed(self.arch, "arch")

    @property
    def network(self) -> nn.Module:
        """The module, where it must be there."""
        return self._needed(self.model, "model")

    @property
    def batches(self) -> Iterable[Any]:
        """The data, where they must be there."""
        return self._needed(self.data, "data")

    @staticmethod
    def _needed(value: Needed | None, name: str) -> Needed:
        if value is None:
            raise MetanetError(f"the matcher needs {name}=...")
        return value


@dataclass(frozen=True)
class Match:
    """What a matcher finds for one checkpoint.

    Attributes:
        transform: moves it onto the reference.
        objective: at the start, then after every step; larger is better.
        untold: groups that nothing could be told of, and why.
    """

    transform: Transform
    objective: tuple[float, ...]
    untold: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Matcher:
    """A registered matcher.

    Attributes:
        name: in ``align(..., method=name)``.
        function: the matcher; returns one :class:`Match`, or one per checkpoint if it takes many.
        many: all checkpoints are matched together, and ``to`` may be ``None``.
        needs: fields of :class:`Problem` that must be given.
    """

    name: str
    function: Callable[..., Any]
    many: bool
    needs: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        """Options and their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


MATCHERS: Registry[Matcher] = Registry(
    "matcher", package="metanet.alignment.matchers", group="metanet.matchers"
)
"""Every matcher by its name."""


def matcher(
    name: str, many: bool = False, needs: Sequence[str] = ()
) -> Callable[[Callable], Callable]:
    """Register a matcher.

    See :class:`Matcher` for the arguments. The tests of all matchers pick it up by themselves.

    Raises:
        MetanetError: there is one of this name; or the function takes other arguments than a problem
            in its place and options by name, each with a default.
    """

    def register(function: Callable) -> Callable:
        """Adds one function."""
        parameters = list(inspect.signature(function).parameters.values())
        in_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        options = parameters[1:]
        by_name = all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in options)
        if not parameters or parameters[0].kind not in in_place or not by_name:
            raise MetanetError(
                f"matcher {name!r} in {function.__code__.co_filename}: {function.__name__} takes "
                f"{inspect.signature(function)}; it must take (problem, *, option=default, ...)"
            )
        MATCHERS.add(name, Matcher(name, function, many, tuple(needs)))
        return function

    return register


def find_matcher(name: str, options: Mapping[str, Any]) -> Matcher:
    """A matcher by its name.

    Raises:
        MetanetError: no such matcher, or no such option; the message lists the choices.
    """
    entry = MATCHERS.find(name)
    unknown = [option for option in options if option not in entry.options]
    if unknown:
        allowed = ", ".join(f"{k}={v!r}" for k, v in entry.options.items()) or "none"
        raise MetanetError(
            f"matcher {name!r} has no option {', '.join(unknown)}. Its options: {allowed}"
        )
    return entry
