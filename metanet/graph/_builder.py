"""From a solved recording to the graph template: which neurons exist, and between which of them every tensor acts.

One pass over the operations. Every value carries a *layout*: for each axis, for each solved factor of that axis, a
label. On an activation the label is the number of the factor among those its site's neurons are made of; on a
rearranged parameter it is the number of the factor in the parameter's own row-major order; -1 is neither. Rules say
how axes flow (``Semantics.flow``), labels flow with them, and at a contraction they tell which factors of the weight
are destinations, sources and kernel positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from ..symmetry import Attach, Contraction, Derivation, Follow, Join, Operand, Regroup, axis_to_json
from ..tracing import Trace
from ._schema import ACTIVATIONS, EdgeType, NodeType
from ._template import Block, GraphTemplate, NodeRange

Labels = tuple[tuple[int, ...], ...]

# how a tensor that is aligned with neurons acts on them: type of its source node, and of its edges
_ROLES_OF_VECTORS = {
    "bias": (NodeType.BIAS, EdgeType.BIAS),
    "shift": (NodeType.BIAS, EdgeType.SHIFT),
    "scale": (NodeType.SCALE, EdgeType.SCALE),
    "mean": (NodeType.MEAN, EdgeType.MEAN),
    "variance": (NodeType.VARIANCE, EdgeType.VARIANCE),
}


@dataclass
class _Site:
    """Neurons in the making: their factors by label, of which only ``owned`` ones count (all but for inputs)."""

    name: str
    factors: list[tuple[int, int]]  # (root, size) by label
    type: NodeType
    layer: int
    owned: list[int] | None  # None: an input whose neurons are decided by the first contraction
    value: int
    activation: str = "none"

    @property
    def count(self) -> int:
        return prod(self.factors[i][1] for i in self.owned or [])


@dataclass
class _Layout:
    """Where the neurons (or a parameter's factors) lie in a value. Exactly one of site and parameter is set."""

    labels: Labels
    site: int | None = None
    parameter: int | None = None


@dataclass
class _Draft:
    """A block before node ranges and edges are numbered."""

    parameter: int | None
    shape: tuple[int, ...]
    roles: tuple[str, ...]
    source: int | tuple[str, NodeType]  # a site, or a source node to be made
    destination: int
    type: EdgeType


@dataclass
class TemplateBuilder:
    """Builds the template of one architecture; ``warnings`` says which tensors found no place."""

    trace: Trace
    solved: Derivation
    sites: list[_Site] = field(default_factory=list)
    drafts: list[_Draft] = field(default_factory=list)
    layouts: dict[int, _Layout] = field(default_factory=dict)
    placed: set[int] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def template(self) -> GraphTemplate:
        """What :meth:`build` made."""
        return self._number()

    def build(self) -> GraphTemplate:
        for number in self.trace.inputs:
            self._add_input(number)
        for number in dict.fromkeys(self.trace.parameters.values()):
            count = 0
            labels = []
            for expr in self.solved.axes[number]:
                n = len(self.solved.factors(expr))
                labels.append(tuple(range(count, count + n)))
                count += n
            self.layouts[number] = _Layout(tuple(labels), parameter=number)
        for op, semantics in zip(self.trace.ops, self.solved.semantics, strict=True):
            out = op.outputs[0]
            if out is None or semantics is None:
                continue
            attaches = [f for f in semantics.flow if isinstance(f, Attach)]
            for flow in semantics.flow:
                if isinstance(flow, Follow):
                    self._follow(out, flow)
                elif isinstance(flow, Regroup):
                    self._regroup(out, flow)
                elif isinstance(flow, Join):
                    self._join(out, flow)
                elif isinstance(flow, Contraction) and out not in self.layouts:
                    self._contract(out, flow)
            for attach in attaches:
                self._attach(out, attach)
            self._note_activation(out, op.name.removeprefix("aten.").strip("_"), semantics.flow)
        for number in self.trace.outputs:
            layout = self.layouts.get(number)
            if layout is not None and layout.site is not None and self.sites[layout.site].type != NodeType.INPUT:
                self.sites[layout.site].type, self.sites[layout.site].value = NodeType.OUTPUT, number
        for number in dict.fromkeys(self.trace.parameters.values()):
            if number not in self.placed:
                self._place_nowhere(number)
        return self.template

    def site_values(self) -> dict[int, tuple[int, int]]:
        """For each node range of neurons that lie along one axis: number of the value they show in, and that axis.

        The value is taken after the site's activation, where it has one.
        """
        found = {}
        for number, site in enumerate(self.sites):
            layout = self.layouts.get(site.value)
            if layout is None or layout.site != number:
                continue
            axes = [a for a, labels in enumerate(layout.labels) if any(x in (site.owned or []) for x in labels)]
            whole = [a for a, n in enumerate(self.trace.values[site.value].shape) if n == 1] if site.count == 1 else []
            axes = axes or whole[-1:]  # a single neuron leaves no factor behind
            if len(axes) == 1 and self.trace.values[site.value].shape[axes[0]] == site.count:
                found[number] = (site.value, axes[0])
        return found

    # ---------------------------------------------------------------- how labels flow

    def _factors(self, value: int, axis: int) -> tuple[tuple[int, int], ...]:
        return self.solved.factors(self.solved.axes[value][axis])

    def _blank(self, value: int) -> list[tuple[int, ...]]:
        return [(-1,) * len(self._factors(value, a)) for a in range(len(self.solved.axes[value]))]

    def _add_input(self, number: int) -> None:
        factors: list[tuple[int, int]] = []
        labels = []
        for axis in range(len(self.solved.axes[number])):
            own = self._factors(number, axis)
            labels.append(tuple(range(len(factors), len(factors) + len(own))))
            factors += own
        name = f"input {self.trace.inputs.index(number)}"
        self.sites.append(_Site(name, factors, NodeType.INPUT, 0, None, number))
        self.layouts[number] = _Layout(tuple(labels), site=len(self.sites) - 1)

    def _follow(self, out: int, flow: Follow) -> None:
        layout = self.layouts.get(flow.operand.value)
        if layout is None:
            return
        labels = self._blank(out)
        for axis, source in enumerate(flow.axes):
            if source is not None and len(layout.labels[source]) == len(labels[axis]):
                labels[axis] = layout.labels[source]
        self.layouts[out] = _Layout(tuple(labels), layout.site, layout.parameter)

    def _regroup(self, out: int, flow: Regroup) -> None:
        layout = self.layouts.get(flow.operand.value)
        if layout is None:
            return
        flat = [label for axis in layout.labels for label in axis]
        labels = []
        for blank in self._blank(out):
            labels.append(tuple(flat[: len(blank)]))
            flat = flat[len(blank) :]
        self.layouts[out] = _Layout(tuple(labels), layout.site, layout.parameter)

    def _note_activation(self, out: int, name: str, flow: Sequence[object]) -> None:
        """The first activation that follows a site is a feature of its neurons, and what they show."""
        layout = self.layouts.get(out)
        unary = all(isinstance(f, Follow) or (isinstance(f, Join) and len(f.operands) == 1) for f in flow)
        if layout is not None and layout.site is not None and unary and name in ACTIVATIONS:
            site = self.sites[layout.site]
            if site.activation == "none":
                site.activation, site.value = name, out

    def _join(self, out: int, flow: Join) -> None:
        known = [(o, self.layouts[o.value]) for o in flow.operands if o.value in self.layouts]
        activations = [(o, lay) for o, lay in known if lay.site is not None]
        parameters = [(o, lay) for o, lay in known if lay.parameter is not None]
        if not activations:  # a parameter computed from parameters: stands for the largest of them
            if parameters:
                o, _ = max(parameters, key=lambda p: prod(p[0].shape))
                self._follow(out, Follow(o, self._aligned(out, o)))
            return
        sites = list(dict.fromkeys(lay.site for _, lay in activations))
        if len(sites) > 1:
            self._new_sum(out, flow, activations)
        else:
            o, _ = max(activations, key=lambda p: prod(p[0].shape))
            self._follow(out, Follow(o, self._aligned(out, o)))
        for o, _ in parameters:
            role = {"add": "bias", "multiply": "scale"}.get(flow.how)
            if role:
                self._attach(out, Attach(o, self._aligned(out, o, inverse=True), role))

    def _aligned(self, out: int, operand: Operand, inverse: bool = False) -> tuple[int | None, ...]:
        """For every output axis the operand's axis broadcast onto it (``inverse``: the other way round)."""
        shape = self.trace.values[out].shape
        lead = len(shape) - len(operand.shape)
        if inverse:
            return tuple(i + lead if n == shape[i + lead] else None for i, n in enumerate(operand.shape))
        return tuple(i - lead if i >= lead and operand.shape[i - lead] == n else None for i, n in enumerate(shape))

    # ---------------------------------------------------------------- new sites

    def _new_sum(self, out: int, flow: Join, activations: Sequence[tuple[Operand, _Layout]]) -> None:
        """A residual sum (or a gate's product): one constant edge from every summand's neuron to the sum's."""
        summands: list[tuple[int, tuple[tuple[int, int], ...]]] = []  # site, ((axis, position), ...) in label order
        for o, layout in activations:
            site = self.sites[layout.site]
            lead = len(self.trace.values[out].shape) - len(o.shape)
            owned = self._owned(site, layout.labels)
            places = [
                (label, a + lead, p)
                for a, axis in enumerate(layout.labels)
                for p, label in enumerate(axis)
                if label in owned
            ]
            summands.append((layout.site, tuple((a, p) for _, a, p in sorted(places))))
        where = summands[0][1]
        factors = [self._factors(out, a)[p] for a, p in where]
        layer = max(self.sites[s].layer for s, _ in summands) + 1
        number = len(self.sites)
        name = f"sum {number}" if flow.how == "add" else f"product {number}"
        self.sites.append(_Site(name, factors, NodeType.SUM, layer, list(range(len(factors))), out))
        labels = [list(axis) for axis in self._blank(out)]
        for label, (a, p) in enumerate(where):
            labels[a][p] = label
        self.layouts[out] = _Layout(tuple(map(tuple, labels)), site=number)
        for site, places in dict.fromkeys(summands):
            if places != where or self.sites[site].count != prod(n for _, n in factors):
                self.warnings.append(f"the neurons of {self.sites[site].name} could not be aligned with {name}")
                continue
            edge = EdgeType.RESIDUAL if flow.how == "add" else EdgeType.PRODUCT
            shape = (prod(n for _, n in factors),)
            self.drafts.append(_Draft(None, shape, ("group",), site, number, edge))

    def _owned(self, site: _Site, labels: Labels, axis: int | None = None) -> list[int]:
        """The labels that count as neurons. Inputs decide now: what this contraction sums over, else all but axis 0."""
        if site.owned is None:
            chosen = labels[axis] if axis is not None else tuple(x for a in labels[1:] for x in a)
            site.owned = sorted(x for x in chosen if x >= 0)
        return site.owned

    def _contract(self, out: int, flow: Contraction) -> None:
        data, weight = self.layouts.get(flow.data.value), self.layouts.get(flow.weight.value)
        if weight is None or weight.parameter is None or (data is not None and data.site is None):
            return
        parameter = weight.parameter
        out_factors = self._factors(out, flow.out_axis)
        number = len(self.sites)
        layer = 1 if data is None else self.sites[data.site].layer + 1
        name = self.trace.values[parameter].names[0]
        site = _Site(name, list(out_factors), NodeType.HIDDEN, layer, list(range(len(out_factors))), out)
        self.sites.append(site)
        labels = self._blank(out)
        labels[flow.out_axis] = tuple(range(len(out_factors)))
        self.layouts[out] = _Layout(tuple(labels), site=number)
        if data is None or parameter in self.placed:
            if parameter in self.placed:
                self.warnings.append(f"{name} is used more than once: only its first use has edges")
            return
        source = self.sites[data.site]
        owned = self._owned(source, data.labels, flow.data_axis)
        roles = ["kernel"] * self._rank(parameter)
        through = list(data.labels[flow.data_axis])
        ins, outs = list(weight.labels[flow.weight_in]), list(weight.labels[flow.weight_out])
        seen: list[int] = []
        if flow.groups > 1:
            groups = self._leading(self._factors(flow.data.value, flow.data_axis), flow.groups)
            grouped = ins if flow.group_axis == flow.weight_in else outs
            for label in grouped[:groups]:
                roles[label] = "group"
            del grouped[:groups]
            seen, through = through[:groups], through[groups:]
        for label in outs:
            roles[label] = "destination"
        for label, below in zip(ins, through, strict=True):
            roles[label] = "source" if below in owned else "kernel"
            seen.append(below)
        counted = [x for x in seen if x in owned]
        if counted != owned or any(x not in owned for x in seen[: len(seen) - len(through)]):
            self.warnings.append(f"{name}: its input neurons could not be followed")
            return
        edge = EdgeType.CONVOLUTION if flow.convolution else EdgeType.LINEAR
        self._place(parameter, roles, data.site, number, edge)

    def _leading(self, factors: Sequence[tuple[int, int]], groups: int) -> int:
        count, size = 0, 1
        while size < groups:
            size *= factors[count][1]
            count += 1
        return count

    # ---------------------------------------------------------------- placing tensors

    def _rank(self, parameter: int) -> int:
        return sum(len(self._factors(parameter, a)) for a in range(len(self.solved.axes[parameter])))

    def _shape(self, parameter: int) -> tuple[int, ...]:
        return tuple(n for a in range(len(self.solved.axes[parameter])) for _, n in self._factors(parameter, a))

    def _attach(self, out: int, attach: Attach) -> None:
        """A tensor aligned with a site's neurons: edges from one source node of its own."""
        layout, above = self.layouts.get(attach.operand.value), self.layouts.get(out)
        if (
            layout is None
            or layout.parameter is None
            or layout.parameter in self.placed
            or above is None
            or above.site is None
        ):
            return
        parameter, site = layout.parameter, self.sites[above.site]
        owned = self._owned(site, above.labels)
        roles, seen = ["kernel"] * self._rank(parameter), []
        for axis, target in enumerate(attach.axes):
            if target is None or len(layout.labels[axis]) != len(above.labels[target]):
                continue
            for label, neuron in zip(layout.labels[axis], above.labels[target], strict=True):
                if neuron in owned and label >= 0:
                    roles[label] = "destination"
                    seen.append((label, neuron))
        if [neuron for _, neuron in sorted(seen)] != owned:
            return  # e.g. one scale for all neurons: no edge per neuron, placed on its own at the end
        node, edge = _ROLES_OF_VECTORS[attach.role]
        self._place(parameter, roles, (self.trace.values[parameter].names[0], node), above.site, edge)

    def _place(
        self, parameter: int, roles: Sequence[str], source: int | tuple[str, NodeType], destination: int, edge: EdgeType
    ) -> None:
        self.placed.add(parameter)
        self.drafts.append(_Draft(parameter, self._shape(parameter), tuple(roles), source, destination, edge))

    def _place_nowhere(self, number: int) -> None:
        """A tensor whose place is not known keeps its edges, all at one node of its own: nothing is lost."""
        name, shape = self.trace.values[number].names[0], self.trace.values[number].shape
        self.sites.append(_Site(name, [], NodeType.TENSOR, 0, [], number))
        self.placed.add(number)
        site = len(self.sites) - 1
        kernel = tuple(n for n in shape if n > 1)
        self.drafts.append(_Draft(number, kernel, ("kernel",) * len(kernel), site, site, EdgeType.TENSOR))
        self.warnings.append(f"{name}: its place in the network is not known, its edges are at a node of their own")

    # ---------------------------------------------------------------- numbering

    def _number(self) -> GraphTemplate:
        nodes: list[NodeRange] = []
        start = 0
        for site in self.sites:
            axis = tuple(site.factors[i][0] for i in site.owned or [])
            count = site.count
            described = axis_to_json(self.solved.axis(axis))
            nodes.append(
                NodeRange(
                    name=site.name,
                    start=start,
                    count=count,
                    type=site.type,
                    layer=site.layer,
                    activation=site.activation,
                    axis=described,
                )
            )
            start += count
        blocks: list[Block] = []
        edge = 0
        for draft in self.drafts:
            source = draft.source
            layer = self.sites[draft.destination].layer
            if isinstance(source, tuple):
                name, kind = source
                nodes.append(NodeRange(name=name, start=start, count=1, type=kind, layer=layer))
                source, start = len(nodes) - 1, start + 1
            names = () if draft.parameter is None else self.trace.values[draft.parameter].names
            blocks.append(Block(
                tensor=names[0] if names else None, names=names, start=edge, shape=draft.shape, roles=draft.roles,
                source=source, destination=draft.destination, type=draft.type, layer=layer,
            ))  # fmt: skip
            edge = blocks[-1].stop
        tensors = {b.tensor: self.trace.values[self.trace.parameters[b.tensor]] for b in blocks if b.tensor is not None}
        dtypes = {name: v.dtype for name, v in tensors.items()}
        shapes = {name: v.shape for name, v in tensors.items()}
        return GraphTemplate(tuple(nodes), tuple(blocks), dtypes, shapes, self.trace.others)
