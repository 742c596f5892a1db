"""Writing a truth down: groups, tensors, and the grammar of their axes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from torch import Tensor, nn

from metanet.sources._torchvision import import_torchvision
from metanet.symmetry import SymmetrySpec
from metanet.symmetry._axes import Axis, Choice, Concat, Fixed, Leaf, Product
from metanet.symmetry._records import Group, TensorAxes

_TOKEN = re.compile(r"\s*(\w[\w.]*!?|[()*|/?:])")


def library(name: str) -> Any:
    """An optional library, or the test is skipped; timm and transformers load only once torchvision
    has."""
    if import_torchvision() is None and name != "transformers":
        pytest.skip("torchvision is not installed")
    return pytest.importorskip(name)


@dataclass(frozen=True)
class Example:
    """A model with two examples of its inputs, of other sizes where the model allows it."""

    model: nn.Module
    args: tuple[Any, ...]
    check_args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    check_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """The symmetries of one architecture.

    Attributes:
        make: builds the model and its inputs; skips the test where the library is missing.
        groups: name -> (size, names of the groups that key it).
        tensors: state dict name -> its axes in the grammar of this package.
    """

    make: Callable[[], Example]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    tensors: Mapping[str, str]

    def spec(self, model: nn.Module) -> SymmetrySpec:
        """The truth as a spec of the model; every floating-point entry of its state dict must be
        written down."""
        entries = {
            n: t for n, t in model.state_dict(keep_vars=True).items() if t.is_floating_point()
        }
        missing, extra = entries.keys() - self.tensors.keys(), self.tensors.keys() - entries.keys()
        assert not missing and not extra, (
            f"not written down: {sorted(missing)}; not in the model: {sorted(extra)}"
        )
        return self.build(entries)

    def build(self, entries: Mapping[str, Tensor]) -> SymmetrySpec:
        """The truth as a spec of these tensors; two names of one tensor count as tied."""
        first: dict[int, str] = {}
        tensors = {}
        for name, tensor in entries.items():
            owner = first.setdefault(id(tensor), name)
            tensors[name] = TensorAxes(
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                axes=self._axes(name, tuple(tensor.shape)),
                tied_to=None if owner == name else owner,
            )
        groups = tuple(
            Group(name=n, size=size, keys=keys, kind="fixed" if n.endswith("!") else "permutation")
            for n, (size, keys) in self.groups.items()
        )
        return SymmetrySpec(groups, tensors)

    def _axes(self, name: str, shape: tuple[int, ...]) -> tuple[Axis, ...]:
        texts = [text.strip() for text in self.tensors[name].split(",")]
        assert len(texts) == len(shape), (
            f"{name} {shape} is written with {len(texts)} axes: {self.tensors[name]}"
        )
        axes = tuple(
            Fixed(size, "by hand") if text == "." else _Parser(text, self.groups).parse()
            for text, size in zip(texts, shape, strict=True)
        )
        sizes = tuple(axis.size for axis in axes)
        assert sizes == shape, f"{name} is {shape}, but {self.tensors[name]!r} gives {sizes}"
        return axes


class _Parser:
    """``concat := product ("|" product)*; product := atom ("*" atom)*; atom := group | number | "("
    concat ")"``.

    Besides, an atom is ``name:(a | b)``, a concatenation with a name, or ``name?(a / b)``, what
    goes by its parts.
    """

    def __init__(self, text: str, groups: Mapping[str, tuple[int, tuple[str, ...]]]) -> None:
        self.text, self.groups, self.at = text, groups, 0

    def parse(self) -> Axis:
        axis = self._concat()
        assert self.at == len(self.text), f"cannot read {self.text[self.at :]!r} in {self.text!r}"
        return axis

    def _peek(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        return match[1] if match else ""

    def _take(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        assert match, f"cannot read {self.text[self.at :]!r} in {self.text!r}"
        self.at = match.end()
        return match[1]

    def _list(
        self, sign: str, part: Callable[[], Axis], join: Callable[[tuple[Axis, ...]], Axis]
    ) -> Axis:
        parts = [part()]
        while self._peek() == sign:
            self._take()
            parts.append(part())
        return parts[0] if len(parts) == 1 else join(tuple(parts))

    def _named(self, name: str) -> Axis:
        """What follows a name: ``:(a | b)`` or ``?(a / b)``."""
        sign, bracket = self._take(), self._take()
        assert bracket == "(", f"{name}{sign} is followed by {bracket!r} in {self.text!r}"
        if sign == ":":
            axis = self._list("|", self._product, lambda parts: Concat(parts, name))
        else:
            axis = self._list("/", self._concat, lambda parts: Choice(name, parts))
        assert self._take() == ")", f"a bracket is not closed in {self.text!r}"
        return axis

    def _concat(self) -> Axis:
        return self._list("|", self._product, Concat)

    def _product(self) -> Axis:
        return self._list("*", self._atom, Product)

    def _atom(self) -> Axis:
        token = self._take()
        if token == "(":
            inner = self._concat()
            assert self._take() == ")", f"a bracket is not closed in {self.text!r}"
            return inner
        if self._peek() in (":", "?"):
            return self._named(token)
        if token.isdigit():
            return Fixed(int(token), "by hand")
        size = self.groups[token][0]
        return Fixed(size, "by hand", token) if token.endswith("!") else Leaf(token, size)


@dataclass
class Sheet:
    """A truth while it is being written; the methods say what a layer's tensors are."""

    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)

    def group(self, name: str, size: int, *keys: str) -> str:
        """A new group; its name."""
        assert name not in self.groups, f"group {name} is written twice"
        self.groups[name] = (size, keys)
        return name

    def tensor(self, name: str, axes: str) -> None:
        """One tensor."""
        assert name not in self.tensors, f"tensor {name} is written twice"
        self.tensors[name] = axes

    def linear(self, name: str, out: str, inputs: str, bias: bool = True, kernel: int = 0) -> None:
        """``weight (out, in, *kernel)`` and ``bias (out)``."""
        self.tensor(f"{name}.weight", ", ".join((out, inputs, *["."] * kernel)))
        if bias:
            self.tensor(f"{name}.bias", out)

    def norm(self, name: str, axis: str, bias: bool = True) -> None:
        """Scale and shift."""
        for part in ("weight", "bias") if bias else ("weight",):
            self.tensor(f"{name}.{part}", axis)

    def batch_norm(self, name: str, axis: str) -> None:
        """Scale, shift and running statistics."""
        for part in ("weight", "bias", "running_mean", "running_var"):
            self.tensor(f"{name}.{part}", axis)

    def truth(self, make: Callable[[], Example]) -> Truth:
        """What has been written, with the model that it is about."""
        return Truth(make, self.groups, self.tensors)
