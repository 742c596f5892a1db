"""The matchers by name.

A matcher is a function ``matcher(problem, *, options...) -> Match`` in a file of its own. Its name
in configurations, its options with their defaults and its place in every parametrised test come
from the decorator and the signature.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..architecture import Architecture
from ..errors import MetanetError
from ..symmetry import SymmetrySpec, Transform


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


MATCHERS: dict[str, Matcher] = {}
"""Every matcher by its name."""


def matcher(
    name: str, many: bool = False, needs: Sequence[str] = ()
) -> Callable[[Callable], Callable]:
    """Register a matcher; see :class:`Matcher` for the arguments. The tests of all matchers pick it
    up by themselves.

    Raises:
        MetanetError: there is one of this name.
    """

    def register(function: Callable) -> Callable:
        if name in MATCHERS:
            raise MetanetError(
                f"two matchers are named {name!r}: {MATCHERS[name].function.__qualname__} and {function.__qualname__}"
            )
        MATCHERS[name] = Matcher(name, function, many, tuple(needs))
        return function

    return register


def find_matcher(name: str, options: Mapping[str, Any]) -> Matcher:
    """A matcher by its name.

    Raises:
        MetanetError: no such matcher, or no such option; the message lists the choices.
    """
    return find_registered(MATCHERS, "matcher", name, options)


def find_registered(
    registry: Mapping[str, Any], what: str, name: str, options: Mapping[str, Any]
) -> Any:
    """An entry of a registry whose entries have ``options``, names with defaults.

    Args:
        what: what to call entries in messages.

    Raises:
        MetanetError: no such entry, or no such option of it; the message lists the choices.
    """
    if name not in registry:
        raise MetanetError(f"there is no {what} {name!r}. Choices: {', '.join(sorted(registry))}")
    found = registry[name]
    if unknown := [k for k in options if k not in found.options]:
        allowed = ", ".join(f"{k}={v!r}" for k, v in found.options.items()) or "none"
        raise MetanetError(
            f"{what} {name!r} has no option {', '.join(unknown)}. Its options: {allowed}"
        )
    return found
