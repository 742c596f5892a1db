"""Options of a method for one tensor: one value for all, one per model, by name pattern, or
changing with depth."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from ..errors import MetanetError
from ._layers import depths
from ._registry import Method, check_options

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
            self._check_override(pattern, values)
        for values in (self.given, *self.overrides.values()):
            for option, value in values.items():
                if option != TAKE:
                    self._at(option, value, 0.0)

    def _check_override(self, pattern: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise MetanetError(f"overrides of {pattern!r}: expected option: value, got {values!r}")
        if not any(fnmatchcase(name, pattern) for name in self.names):
            near = ", ".join(self.names[:3])
            raise MetanetError(
                f"overrides: no tensor is called like {pattern!r}; names are {near}, ..."
            )
        check_options(self.method, [option for option in values if option != TAKE])
        for option in values:
            if option in self.method.whole:
                raise MetanetError(f"overrides of {pattern!r}: {option} holds for the whole merge")
        self._check_taken(pattern, values.get(TAKE))

    def _check_taken(self, pattern: str, label: Any) -> None:
        if label is None or (label == "base" and self.base):
            return
        is_number = isinstance(label, int) and not isinstance(label, bool)
        if is_number and 0 <= label < self.models:
            return
        or_base = ", or base" if self.base else ""
        raise MetanetError(
            f"overrides of {pattern!r}: take={label!r}; give 0 to {self.models - 1}{or_base}"
        )

    @cached_property
    def _depths(self) -> dict[str, float]:
        return depths(self.names)

    @cached_property
    def _tied(self) -> dict[str, list[str]]:
        """First name -> all names of that tensor."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name, one in self.first.items():
            groups[one].append(name)
        return dict(groups)

    def taken(self, name: str) -> int | str | None:
        """The model (a number, or ``"base"``) whose tensor is taken as it is; ``None`` where all
        are merged."""
        label: int | str | None = self._values(name).get(TAKE)
        return label

    def of(self, name: str, numbers: Sequence[int]) -> dict[str, Any]:
        """The function's options for a tensor.

        Args:
            numbers: the models that take part.
        """
        values = self._values(name)
        out = {}
        for option in self.method.taken:
            default = self.method.options[option]
            value = self._at(option, values.get(option, default), self._depths[name])
            several = option in self.method.per_model
            out[option] = [value[number] for number in numbers] if several else value
        return out

    def prepared(self) -> dict[str, Any]:
        """The options of ``prepare``; a list for those of which every model has its own.

        Raises:
            MetanetError: one of them is a gradient.
        """
        out = {}
        for option in self.method.whole:
            value = self.given.get(option, self.method.options[option])
            if any(map(_is_gradient, value if _is_list(value) else [value])):
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
        values = {}
        for option, default in self.method.options.items():
            values[option] = self._at(option, self.given.get(option, default), 0.5)
        if self.method.shares is None:
            counts = values.get("weights", [1.0] * self.models)
        else:
            counts = list(self.method.shares(prepared, values, self.models))
        total = sum(counts)
        if not total:
            return [1.0 / self.models] * self.models
        return [count / total for count in counts]

    def _values(self, name: str) -> dict[str, Any]:
        """The options that were given for a tensor, by all of its names: later overrides win."""
        values = dict(self.given)
        names = self._tied.get(self.first.get(name, name), [name])
        for pattern, override in self.overrides.items():
            if any(fnmatchcase(alias, pattern) for alias in names):
                values.update(override)
        return values

    def _at(self, option: str, value: Any, depth: float) -> Any:
        """A value at a depth; one for every model if every model has its own."""
        if option in self.method.per_model:
            values = list(value) if _is_list(value) else [value] * self.models
            if len(values) != self.models:
                raise MetanetError(f"{option} has {len(values)} values for {self.models} models")
            return [_interpolated(option, of_model, depth) for of_model in values]
        is_numeric = _is_number(self.method.options[option]) or _is_gradient(value)
        return _interpolated(option, value, depth) if is_numeric else value


def _is_list(value: Any) -> bool:
    """Whether there is a value for each model."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_gradient(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {GRADIENT}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _interpolated(option: str, value: Any, depth: float) -> Any:
    """A number; of a gradient, the one at this depth, straight between its points."""
    if not _is_gradient(value):
        if not _is_number(value):
            raise MetanetError(
                f"{option}={value!r}: give a number, or "
                f"{{gradient: [FIRST_LAYER, ..., LAST_LAYER]}}"
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
