"""The state of the pass over a recording: what every handler reads and adds to.

A handler is a function ``(state, operation) -> bool`` that says whether it has dealt with the
operation. It reads what its operands show (``state.contents``), makes neurons (``state.new_site``)
and edges (``state.uses``), and puts down what the results show (``state.put``)::

    x --- linear --- y        contents[x]: the neurons of x
          |                   contents[w]: the entries of the parameter w
          w                   put(y): new neurons, edges of w from those of x
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TypeVar

from torch import Tensor

from ...symmetry import Derivation, Flow, Semantics
from ...tracing import Op, Trace, is_integer
from ..template._schema import NodeType
from ._contents import Content, Effect, Entries
from ._factors import keyed_factors
from ._groups import groups_along
from ._ids import distinct, stepping, varying
from ._made import Made, Reduction
from ._pool import Pool, Site
from ._uses import Uses

F = TypeVar("F", bound=Flow)


@dataclass(frozen=True)
class Operation:
    """One operation of the recording, and what it means."""

    op: Op
    semantics: Semantics

    @property
    def out(self) -> int:
        """Number of its first result."""
        number = self.op.outputs[0]
        assert number is not None
        return number

    def said(self, kind: type[F]) -> list[F]:
        """All that is said of the flow of neurons in one of the words."""
        return [flow for flow in self.semantics.flow if isinstance(flow, kind)]

    def word(self, kind: type[F]) -> F | None:
        """What is said in one of the words, ``None`` if it is not used."""
        return next((flow for flow in self.semantics.flow if isinstance(flow, kind)), None)


@dataclass
class State:
    """The state of the pass.

    Attributes:
        contents: what every value shows that is still needed.
        choices: for integers that name items (which expert): the choice that they came from.
        kept: contents of the values that neurons show in.
        heads, mixes: queries and keys of attention; values, and what attention makes of them.
        uses: the edges in the making.
        made: sums and products by what they are made of, so that the same ones are not made twice.
        reductions: sums and the like over neurons.
        summed_inputs: whether entries of an input were summed up that may turn out to be one
            neuron.
    """

    trace: Trace
    solved: Derivation
    pool: Pool = field(default_factory=Pool)
    contents: dict[int, Content] = field(default_factory=dict)
    choices: dict[int, int] = field(default_factory=dict)
    kept: dict[int, Content] = field(default_factory=dict)
    heads: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    mixes: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    uses: Uses = field(init=False)
    made: Made = field(init=False)
    reductions: list[Reduction] = field(default_factory=list)
    summed_inputs: bool = False
    _shown: int = 0

    def __post_init__(self) -> None:
        values, spec = self.trace.values, self.solved.spec
        parameters = dict.fromkeys(self.trace.parameters.values())
        names = {n: values[n].names[0] for n in parameters if not is_integer(values[n].dtype)}
        shapes = {n: values[n].shape for n in names}
        keyed = {n: keyed_factors(spec, name) for n, name in names.items() if prod(shapes[n])}
        self.made = Made(self.pool)
        self.uses = Uses(self.pool, shapes, names, keyed=keyed)

    # ---------------------------------------------------------------- values

    @cached_property
    def _known(self) -> Mapping[int, Tensor]:
        return self.trace.known(but=self.solved.spec.tensors.keys())

    def constant(self, number: int) -> Tensor | None:
        """Values of a constant, or of what follows from index tables that no relabelling
        touches."""
        return self._known.get(number)

    def shape(self, number: int) -> tuple[int, ...]:
        """The shape of a value."""
        return self.trace.values[number].shape

    def holds_integers(self, number: int) -> bool:
        """Whether a value may name items."""
        return "int" in self.trace.values[number].dtype

    def content(self, number: int) -> Content:
        """What a value shows, nothing if it is not followed."""
        return self.contents.get(number, Content())

    def put(self, number: int | None, content: Content) -> None:
        """A value shows this."""
        if number is not None and content and 0 not in self.shape(number):
            self.contents[number] = content
            self._show(number, content)

    def _show(self, number: int, content: Content) -> None:
        """Nodes that were just made show in this value."""
        if content.neurons and len(self.pool) > self._shown:
            nodes = distinct(content.neurons[0].ids)
            for node in nodes[nodes >= self._shown].tolist():
                self.pool.value[node] = number
            self.kept[number] = content
            self._shown = len(self.pool)

    # ---------------------------------------------------------------- nodes and edges

    def groups_along(self, value: int, axis: int) -> list[str]:
        """For every item of an axis of a value the group that moves it, "" if none does."""
        return groups_along(self.solved.axis(self.solved.axes[value][axis]))

    def new_site(
        self,
        name: str,
        sizes: Sequence[int],
        type: NodeType,
        layer: int,
        value: int | None = None,
        axes: Sequence[int] = (),
    ) -> Site:
        """Neurons over some axes of a value, the last of them fastest; their group is that of the
        fastest axis."""
        count = prod(sizes)
        groups: list[str] = [""] * count
        if value is not None and axes:
            along = self.groups_along(value, axes[-1])
            if len(along) and count % len(along) == 0:
                groups = along * (count // len(along))
        return self.pool.new(name, count, type, layer, groups)

    def attach(self, entries: Entries, content: Content, effect: Effect) -> None:
        """A tensor acts on neurons: on those which vary along the same axes as it does.

        Where these neurons have hidden axes (a bias of every expert, added to what the chosen expert
        made), so has the tensor, or it acts on all items alike.
        """
        moving = set(varying(entries.ids))
        best = max(content.neurons, key=lambda n: len(moving.intersection(varying(n.ids))))
        ids = best.ids
        for axis, (size, step) in best.hidden.items():
            ids = stepping(ids, size, step)
            if axis in entries.hidden:
                entries = entries.with_axis(axis, entries.hidden[axis])
            else:
                alike = entries.ids.unsqueeze(0).expand(size, *entries.ids.shape)
                entries = replace(entries, ids=alike)
        self.uses.attach(entries, ids, *effect.kinds)
