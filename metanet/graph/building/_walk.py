"""From a solved recording to neurons and edges: one pass over the operations.

Every value has a :class:`~metanet.graph._flows.Flow`. Rearrangements are run on its integers;
contractions with parameters, sums and products make new neurons; everything else stays on the
neurons it reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from ...symmetry import Attach, Contraction, Derivation, Follow, Join, Product, Semantics
from ...tracing import Op, Trace, is_integer
from ._beside import concatenate, write
from ._contract import contract
from ._flows import Entries, Flow, Neurons, distinct, place, rearrange, rearranges, varies, whole
from ._groups import groups_along, keys_in, names_in
from ._join import close, gate, is_raw, join
from ._lookup import look_up
from ._made import Made
from ._pool import Pool, Site
from ._reduce import Reduction, connect_reductions, reduce
from ..template._schema import ACTIVATIONS, NodeType
from ._uses import ROLES_OF_VECTORS, Factor, Uses, with_axis

_LOOKUPS = {"aten.embedding", "aten.index", "aten.index_select", "aten.gather", "aten._embedding_bag",
            "aten._embedding_bag_forward_only", "aten._unsafe_index", "aten.take_along_dim"}  # fmt: skip
_CHOOSE = {"aten.topk", "aten.sort", "aten.argmax", "aten.argmin", "aten.max", "aten.min"}


@dataclass
class Walk:
    """The state of the pass.

    Attributes:
        flows: of every value that is still needed.
        named: for integers that name items (which expert): a number for the choice that they came
            from.
        made: sums and products by what they are made of, so that the same ones are not made twice.
        kept: flows of the values that neurons show in.
        reductions: sums and the like over neurons.
        summed_inputs: whether entries of an input were summed up that may turn out to be one
            neuron.
        heads, mixes: queries and keys of attention; values, and what attention makes of them.
    """

    trace: Trace
    solved: Derivation
    pool: Pool = field(default_factory=Pool)
    flows: dict[int, Flow] = field(default_factory=dict)
    named: dict[int, int] = field(default_factory=dict)
    kept: dict[int, Flow] = field(default_factory=dict)
    heads: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    mixes: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    uses: Uses = field(init=False)
    made: Made = field(init=False)
    reductions: list[Reduction] = field(default_factory=list)
    summed_inputs: bool = False
    _shown: int = 0
    _unions: int = 0

    def __post_init__(self) -> None:
        values = self.trace.values
        numbers = [
            n
            for n in dict.fromkeys(self.trace.parameters.values())
            if not is_integer(values[n].dtype)
        ]
        names = {n: values[n].names[0] for n in numbers}
        self.made = Made(self.pool)
        self.uses = Uses(
            self.pool, {n: values[n].shape for n in numbers}, names, keyed=self._keyed(names)
        )

    @cached_property
    def _known(self) -> Mapping[int, Tensor]:
        return self.trace.known(but=self.solved.spec.tensors.keys())

    def _keyed(self, names: Mapping[int, str]) -> dict[int, list[tuple[Factor, Factor]]]:
        """For every parameter pairs of factors of its axes: one that moves by what the other says,
        and the other."""
        keys = {g.name: g.keys for g in self.solved.spec.groups}
        found: dict[int, list[tuple[Factor, Factor]]] = {}
        for number, name in names.items():
            tensor = self.solved.spec.tensors[name]
            factors: list[tuple[Factor, set[str], set[str]]] = []
            if not prod(tensor.shape):
                continue
            for a, axis in enumerate(tensor.axes):
                step = prod(tensor.shape[a:])
                for part in axis.parts if isinstance(axis, Product) else (axis,):
                    step //= part.size
                    factors.append(((step, part.size), names_in(part), keys_in(part, keys)))
            pairs = [
                (f, g)
                for f, _, wanted in factors
                for g, names, _ in factors
                if f != g and wanted & names
            ]
            if pairs:
                found[number] = pairs
        return found

    def run(self, known: "Walk | None" = None) -> "Walk":
        """Walk through the recording; entries of inputs that another walk made one are so from the
        start."""
        for number in self.trace.inputs:
            self._add_input(number)
        if known is not None:
            ids = torch.arange(len(self.pool))
            self.pool.unite(ids, torch.from_numpy(known.pool.roots()[: len(ids)]))
        for number in (n for n, shape in self.uses.shapes.items() if prod(shape)):
            self.flows[number] = Flow(entries=(whole(number, self.trace.values[number].shape),))
        last = {
            n: i
            for i, op in enumerate(self.trace.ops)
            for n in (*op.inputs(), *(o for o in op.outputs if o))
        }
        ending: dict[int, list[int]] = {}
        for number, i in last.items():
            ending.setdefault(i, []).append(number)
        outputs = set(self.trace.outputs)
        for i, (op, semantics) in enumerate(
            zip(self.trace.ops, self.solved.semantics, strict=True)
        ):
            if semantics is not None:
                self._step(op, semantics)
            if self.pool.unions > self._unions:  # a recurrence: what it is made of recurs, too
                close(self)
                self._unions = self.pool.unions
            for number in ending.get(i, ()):  # what nobody reads any more
                if number not in outputs:
                    self.flows.pop(number, None)
        close(self)
        connect_reductions(self.pool, self.uses, self.reductions)
        return self

    def _add_input(self, number: int) -> None:
        shape = self.trace.values[number].shape
        count = prod(shape)
        if (
            "int" in self.trace.values[number].dtype
            or "bool" in self.trace.values[number].dtype
            or not count
        ):
            return
        site = self.pool.new(
            f"input {self.trace.inputs.index(number)}", count, NodeType.INPUT, 0, raw=True
        )
        self.flows[number] = Flow((Neurons(site.ids.view(shape)),))
        self.kept[number] = self.flows[number]

    def constant(self, number: int) -> Tensor | None:
        """Values of a constant, or of what follows from index tables that no relabelling
        touches."""
        return self._known.get(number)

    # ---------------------------------------------------------------- one operation

    def _step(self, op: Op, semantics: Semantics) -> None:
        self.uses.module = op.module
        inputs = [n for n in op.inputs() if n in self.flows]
        self._note_choice(op, inputs)
        if not inputs or all(o is None or 0 in self.trace.values[o].shape for o in op.outputs):
            return
        flow = semantics.flow
        contractions = [f for f in flow if isinstance(f, Contraction)]
        if contractions:
            self.put(op.outputs[0], contract(self, op, contractions))
        elif op.name in _LOOKUPS and look_up(self, op):
            return
        elif op.name in ("aten.cat", "aten.concat", "aten.stack"):
            self.put(op.outputs[0], concatenate(self, op))
            return
        elif (
            op.name in ("aten.slice_scatter", "aten.select_scatter")
            and (found := write(self, op)) is not None
        ):
            self.put(op.outputs[0], found)
            return
        elif op.name == "aten.glu":
            self.put(op.outputs[0], gate(self, op))
        elif rearranges(op.name) and self._rearrange(op):
            return
        elif joins := [f for f in flow if isinstance(f, Join)]:
            self.put(op.outputs[0], join(self, op.outputs[0], joins[0]))
        elif follows := [f for f in flow if isinstance(f, Follow)]:
            self._follow(op, follows[0].operand.value, follows[0].axes)
        else:
            self._by_axes(op, semantics)
        for attach in flow:
            if isinstance(attach, Attach):
                self._attach(op.outputs[0], attach)
        self._note_activation(op, flow)

    def put(self, number: int | None, flow: Flow) -> None:
        if number is not None and flow and 0 not in self.trace.values[number].shape:
            self.flows[number] = flow
            self._show(number, flow)

    def _show(self, number: int, flow: Flow) -> None:
        """Nodes that were just made show in this value."""
        if flow.neurons and len(self.pool) > self._shown:
            new = distinct(flow.neurons[0].ids)
            for node in new[new >= self._shown].tolist():
                self.pool.value[node] = number
            self.kept[number] = flow
            self._shown = len(self.pool)

    def _note_choice(self, op: Op, inputs: Sequence[int]) -> None:
        """Integers that come from the network's own numbers name items, for instance experts."""
        if op.name in _CHOOSE and inputs:
            for number in op.outputs:
                if number is not None and "int" in self.trace.values[number].dtype:
                    self.named[number] = number
        elif rearranges(op.name) or op.name in ("aten.cat", "aten.stack"):
            known = [self.named[n] for n in op.inputs() if n in self.named]
            for number in op.outputs if known else ():
                if number is not None:
                    self.named[number] = known[0]

    def _rearrange(self, op: Op) -> bool:
        first = op.inputs()[0]
        flow = self.flows.get(first)
        if flow is None or any(n in self.flows for n in op.inputs()[1:]):
            return False
        outs: list[list[Neurons | Entries]] = [[] for _ in op.outputs]
        for part in (*flow.neurons, *flow.entries):
            results = rearrange(op, part.ids, self.constant)
            if results is None:
                return False
            for out, ids in zip(outs, results, strict=False):
                new = replace(part, ids=ids)
                if ids.is_meta or bool((ids >= 0).any()):
                    out.append(new)
        for number, out in zip(op.outputs, outs, strict=True):
            if number is not None:
                neurons = tuple(p for p in out if isinstance(p, Neurons))
                self.put(number, Flow(neurons, tuple(p for p in out if isinstance(p, Entries))))
        return True

    def _follow(
        self, op: Op, source: int, axes: Sequence[int | None], out: int | None = None
    ) -> None:
        """Output axis i is the source's axis ``axes[i]``."""
        flow = self.flows.get(source)
        out = op.outputs[0] if out is None else out
        if flow is None or out is None:
            return
        shape = self.trace.values[out].shape
        rank = len(self.trace.values[source].shape)
        back: list[int | None] = [None] * rank
        for i, axis in enumerate(axes):
            if axis is not None and self.trace.values[source].shape[axis] == shape[i]:
                back[axis] = i
        neurons = []
        for part in flow.neurons:
            ids = self.pool.find(part.ids)
            if any(back[a] is None and varies(ids, a) for a in range(rank)):
                raw = is_raw(self, ids)
                self.summed_inputs |= raw
                if not raw and (new := reduce(self, op.name, part, back, shape)) is not None:
                    neurons.append(new)
                continue
            neurons.append(Neurons(place(ids, back, shape), part.hidden))
        entries = []
        for e in flow.entries:
            hidden = dict(e.hidden)
            gone = [a for a in range(rank) if back[a] is None and varies(e.ids, a)]
            if gone and not e.strided:
                continue
            for a in gone:
                hidden[-1 - len(hidden) - 1000 * e.parameter] = (e.ids.shape[a], e.ids.stride(a))
            entries.append(replace(e, ids=place(e.ids, back, shape), hidden=hidden))
        self.put(out, Flow(tuple(neurons), tuple(entries)))

    def _by_axes(self, op: Op, semantics: Semantics) -> None:
        """An operation that says nothing of flow: axes that list the same items are the same
        axes."""
        sources = [n for n in dict.fromkeys(op.inputs()) if n in self.flows]
        for out in op.outputs:
            if out is None or out not in self.solved.axes or "int" in self.trace.values[out].dtype:
                continue
            matches = [(n, self._matching_axes(n, out)) for n in sources]
            scores = [self._varying(self.flows[n], axes) for n, axes in matches]
            with_neurons = [i for i, n in enumerate(sources) if self.flows[n].neurons and scores[i]]
            if with_neurons:
                self._follow(op, *matches[max(with_neurons, key=scores.__getitem__)], out)
            if flow := self.flows.get(out):
                self._act(flow, [(n, axes) for n, axes in matches if not self.flows[n].neurons])
                continue
            found: list[Entries] = []
            for (n, axes), score in zip(
                matches, scores, strict=True
            ):  # parameters made of parameters
                if score:
                    self._follow(op, n, axes, out)
                    found += self.flows.pop(out, Flow()).entries
            self.put(out, Flow(entries=tuple(found)))

    def _act(self, flow: Flow, matches: Sequence[tuple[int, Sequence[int | None]]]) -> None:
        """Parameters that enter an operation beside neurons."""
        shape = next(n.ids.shape for n in flow.neurons) if flow.neurons else ()
        for n, axes in matches if flow.neurons else ():
            back: list[int | None] = [None] * len(self.trace.values[n].shape)
            for i, axis in enumerate(axes):
                if axis is not None:
                    back[axis] = i
            for e in self.flows[n].entries:
                if all(b is not None or not varies(e.ids, a) for a, b in enumerate(back)):
                    self.vector(replace(e, ids=place(e.ids, back, shape)), flow, "other")

    def _matching_axes(self, source: int, out: int) -> list[int | None]:
        leaves, values = self.solved.leaves, self.trace.values
        own = [leaves.expand(e) for e in self.solved.axes[source]]
        left = list(range(len(own)))
        axes: list[int | None] = []
        for a, expr in enumerate(self.solved.axes[out]):
            expr, size = leaves.expand(expr), values[out].shape[a]
            same = next(
                (b for b in left if own[b] == expr and values[source].shape[b] == size), None
            )
            axes.append(same)
            if same is not None:
                left.remove(same)
        return axes

    def _varying(self, flow: Flow, axes: Sequence[int | None]) -> int:
        return sum(
            varies(p.ids, b) for p in (*flow.neurons, *flow.entries) for b in axes if b is not None
        )

    def _attach(self, out: int | None, attach: Attach) -> None:
        flow, below = self.flows.get(out), self.flows.get(attach.operand.value)
        if flow is None or below is None:
            return
        shape = self.trace.values[out].shape
        placed = [
            replace(e, ids=place(e.ids, attach.axes, shape), role=attach.role)
            for e in below.entries
        ]
        if flow.neurons:
            for e in placed:
                self.vector(e, flow, attach.role)
        else:  # the norm of a parameter, which may turn out to be a weight or to flow like an activation
            self.flows[out] = Flow(entries=(*flow.entries, *placed))

    def vector(self, entries: Entries, flow: Flow, role: str) -> None:
        """A tensor acts on neurons: on those which vary along the same axes as it does."""
        rank = range(entries.ids.ndim)
        own = {a for a in rank if varies(entries.ids, a)}
        best = max(flow.neurons, key=lambda n: sum(a in own for a in rank if varies(n.ids, a)))
        ids = best.ids
        for key, (size, step) in best.hidden.items():
            more = torch.arange(size).view(-1, *(1,) * ids.ndim) * step
            ids = ids.unsqueeze(0) + more
            x = entries.ids.unsqueeze(0).expand(size, *entries.ids.shape)
            hidden = dict(entries.hidden)
            if key in hidden:
                entries = with_axis(entries, key, *hidden.pop(key))
            else:
                entries = replace(entries, ids=x, hidden=hidden)
        self.uses.attach(entries, ids, *ROLES_OF_VECTORS[role])

    def _note_activation(self, op: Op, flow: Sequence[object]) -> None:
        """The first activation that follows a site is a feature of its neurons, and what they
        show."""
        out, name = op.outputs[0], op.name.removeprefix("aten.").strip("_")
        found = self.flows.get(out)
        unary = all(
            isinstance(f, Follow) or (isinstance(f, Join) and len(f.operands) == 1) for f in flow
        )
        if (
            found is None
            or len(found.neurons) != 1
            or found.neurons[0].hidden
            or not unary
            or name not in ACTIVATIONS
        ):
            return
        number = ACTIVATIONS.index(name)
        nodes = self.pool.find(distinct(found.neurons[0].ids))
        for node, site in zip(nodes.tolist(), self.pool.site_number(nodes).tolist(), strict=True):
            if node not in self.pool.activation and not self.pool.sites[site].raw:
                self.pool.activation[node] = number
                self.pool.value[node] = out
        self.kept[out] = found

    def new_site(
        self,
        name: str,
        ids_shape: Sequence[int],
        type: NodeType,
        layer: int,
        value: int | None,
        axes: Sequence[int],
    ) -> Site:
        """Neurons over some axes of a value, the last of them fastest; their group is that of the
        fastest axis."""
        count = prod(ids_shape)
        groups: list[str] = [""] * count
        if value is not None and axes:
            along = groups_along(self.solved.axis(self.solved.axes[value][axes[-1]]))
            if len(along) and count % len(along) == 0:
                groups = along * (count // len(along))
        return self.pool.new(name, count, type, layer, groups)
