"""Options of a method for one tensor: one value for all, one per model, by name pattern, or
changing with depth."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from ..errors import MetanetError
from ._layers import depths
from ._registry import Method, find_method

TAKE = "take"  # an override that takes the tensor of one model, or of the base, as it is
GRADIENT = "gradient"


@dataclass(frozen=True)
class TensorOptions:
    """The options of one merge.

    Args:
        method: the method.
        given: option -> value, as the caller gave them.
        overrides: name pattern (``*`` and ``?``) -> option -> value; where several patterns match,
            the last one counts.
        models: how many models there are.
        names: of the result's tensors.
        base: whether there is a base.
        first: name -> the first name of its tensor: a pattern is about a tensor if it matches any
            of its names.

    Raises:
        MetanetError: unknown options, values of another form, a pattern that no name matches.
    """

    method: Method
    given: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, Any]]
    models: int
    names: tuple[str, ...]
    base: bool
    first: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern, values in self.overrides.items():
            if not isinstance(values, Mapping):
                raise MetanetError(
                    f"overrides of {pattern!r}: expected option: value, got {values!r}"
                )
            if not any(fnmatchcase(name, pattern) for name in self.names):
                near = ", ".join(self.names[:3])
                raise MetanetError(
                    f"overrides: no tensor is called like {pattern!r}; names are {near}, ..."
                )
            find_method(self.method.name, {k: v for k, v in values.items() if k != TAKE})
            if fixed := [k for k in values if k in self.method.whole]:
                raise MetanetError(
                    f"overrides of {pattern!r}: {fixed[0]} holds for the whole merge"
                )
            self._check_taken(pattern, values)
        for values in (self.given, *self.overrides.values()):
            for name, value in values.items():
                if name != TAKE:
                    self._at(name, value, 0.0)

    @cached_property
    def _depths(self) -> dict[str, float]:
        return depths(self.names)

    @cached_property
    def _tied(self) -> dict[str, list[str]]:
        """First name -> all names of that tensor."""
        groups: dict[str, list[str]] = {}
        for name, one in self.first.items():
            groups.setdefault(one, []).append(name)
        return groups

    def taken(self, name: str) -> int | str | None:
        """The model (a number, or ``"base"``) whose tensor is taken as it is; ``None`` where all
        are merged."""
        return self._found(name).get(TAKE)

    def of(self, name: str, numbers: Sequence[int]) -> dict[str, Any]:
        """The function's options for a tensor.

        Args:
            numbers: the models that take part.
        """
        found, depth = self._found(name), self._depths[name]
        out = {}
        for option in self.method.taken:
            value = self._at(option, found.get(option, self.method.options[option]), depth)
            out[option] = [value[k] for k in numbers] if option in self.method.per_model else value
        return out

    def prepared(self) -> dict[str, Any]:
        """The options of ``prepare``; a list for those of which every model has its own.

        Raises:
            MetanetError: one of them is a gradient.
        """
        out = {}
        for option in self.method.whole:
            value = self.given.get(option, self.method.options[option])
            if _is_gradient(value) or (
                isinstance(value, Sequence) and any(map(_is_gradient, value))
            ):
                raise MetanetError(
                    f"{option} holds for the whole merge: it can't change with depth"
                )
            out[option] = self._at(option, value, 0.0)
        return out

    def shares(self, prepared: Any) -> list[float]:
        """How much each model counts in the result: by the method, by its weights, or all alike;
        they sum to 1.

        Args:
            prepared: what the method's ``prepare`` returned.
        """
        values = {
            n: self._at(n, self.given.get(n, default), 0.5)
            for n, default in self.method.options.items()
        }
        if self.method.shares is not None:
            found = list(self.method.shares(prepared, values, self.models))
        else:
            found = values.get("weights", [1.0] * self.models)
        total = sum(found)
        return [share / total for share in found] if total else [1.0 / self.models] * self.models

    def _found(self, name: str) -> dict[str, Any]:
        found = dict(self.given)
        names = self._tied.get(self.first.get(name, name), [name])
        for pattern, values in self.overrides.items():
            if any(fnmatchcase(each, pattern) for each in names):
                found.update(values)
        return found

    def _at(self, option: str, value: Any, depth: float) -> Any:
        """A value at a depth; one for every model if every model has its own."""
        if option not in self.method.per_model:
            default = self.method.options[option]
            return (
                _interpolated(option, value, depth)
                if _is_number(default) or _is_gradient(value)
                else value
            )
        values = (
            list(value)
            if isinstance(value, Sequence) and not isinstance(value, str)
            else [value] * self.models
        )
        if len(values) != self.models:
            raise MetanetError(f"{option} has {len(values)} values for {self.models} models")
        return [_interpolated(option, each, depth) for each in values]

    def _check_taken(self, pattern: str, values: Mapping[str, Any]) -> None:
        taken = values.get(TAKE)
        if taken is None or (taken == "base" and self.base):
            return
        if not isinstance(taken, int) or isinstance(taken, bool) or not 0 <= taken < self.models:
            more = ", or base" if self.base else ""
            raise MetanetError(
                f"overrides of {pattern!r}: take={taken!r}; give 0 to {self.models - 1}{more}"
            )


def _is_gradient(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {GRADIENT}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interpolated(option: str, value: Any, depth: float) -> Any:
    """A number; of a gradient, the one at this depth, straight between its points."""
    if not _is_gradient(value):
        if not _is_number(value):
            raise MetanetError(
                f"{option}={value!r}: give a number, or {{gradient: [FIRST_LAYER, ..., LAST_LAYER]}}"
            )
        return value
    points = value[GRADIENT]
    if not _is_points(points):
        raise MetanetError(f"{option}: a gradient is a list of two or more numbers, got {points!r}")
    position = depth * (len(points) - 1)
    low = min(int(position), len(points) - 2)
    return points[low] + (position - low) * (points[low + 1] - points[low])


def _is_points(points: Any) -> bool:
    return isinstance(points, Iterable) and len(list(points)) > 1 and all(map(_is_number, points))
