"""Sums over a shared axis: neurons through a weight become new neurons."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...symmetry import Contraction, Operand
from ..template._schema import EdgeType, NodeType
from ._activate import activate
from ._contents import Content, Entries, Neurons
from ._convolve import convolve
from ._couple import couple
from ._ids import distinct, lay, place, varies
from ._merge import merge
from ._multiply import axes_in_product, multiply
from ._state import Operation, State


def contract(state: State, operation: Operation) -> bool:
    """The neurons of a product: of a weight with neurons, of neurons with neurons.

    ::

        neurons @ weight      new neurons
        weight @ weight       the first flows like an activation: neurons of its own, then new ones
        neurons @ neurons     heads, attention: see ``_couple.py``
        neurons @ something   it mixes what it sums; the neurons of the other axes stay
    """
    flows = operation.said(Contraction)
    if not flows:
        return False
    state.put(operation.out, _product(state, operation.out, flows))
    return True


def _product(state: State, out: int, flows: Sequence[Contraction]) -> Content:
    def content(operand: Operand) -> Content:
        return state.content(operand.value)

    # both ways to read a @ b are flows: b the weight of a, and a the weight of b
    weighing = [f for f in flows if _is_weight(content(f.weight))]
    for flow in weighing:
        if content(flow.data).neurons:
            return _weigh(state, out, flow, content(flow.data).neurons)
    if weighing:
        flow = weighing[0]
        entries, neurons = content(flow.data).entries, []
        if entries:
            neurons = [activate(state, flow.data.value, flow.data_axis, entries)]
        return _weigh(state, out, flow, neurons)
    flow = flows[0]
    data, weight = content(flow.data).neurons, content(flow.weight).neurons
    if data and weight and not flow.convolution:
        return couple(state, out, flow, data, weight)
    flow = next((f for f in flows if content(f.data).neurons), flow)
    return Content(tuple(_not_summed(flow, content(flow.data).neurons, state.shape(out))))


def _is_weight(content: Content) -> bool:
    return bool(content.entries) and not content.neurons


def _not_summed(
    flow: Contraction, neurons: Sequence[Neurons], shape: tuple[int, ...]
) -> list[Neurons]:
    """What a value shows besides the neurons that are summed over, over the axes of the product."""
    axes = axes_in_product(flow)
    lost = [flow.data_axis, *(a for a, target in enumerate(axes) if target is None)]
    return [
        Neurons(place(n.ids, axes, shape), n.hidden)
        for n in neurons
        if not any(varies(n.ids, a) for a in lost)
    ]


def _weigh(state: State, out: int, flow: Contraction, neurons: Sequence[Neurons]) -> Content:
    """Neurons, or none, through a weight."""
    weights = state.content(flow.weight.value).entries
    width = flow.data.shape[flow.data_axis]
    # x (batch, 3) @ W.T, W (8, 3):
    #     summed    neurons that differ along the axis of 3: these go through the weight
    #     others    neurons that differ elsewhere only: they show in the result as they are
    summed = [n for n in neurons if varies(n.ids, flow.data_axis)]
    alike = [n for n in neurons if n not in summed]
    others = _not_summed(flow, alike, state.shape(out))
    if len(summed) > 1:
        summed = merge(state, summed, "multiply", outer=True)
    if summed:
        data = summed[0]
    elif width == 1 and neurons:
        data, others = neurons[0], others[1:]
    elif not flow.convolution and _inputs_are_keyed(state, flow, weights):
        return Content((_table(state, out, flow, weights), *others))
    else:
        data = _origins(state, flow, neurons)
    through = convolve if flow.convolution else multiply
    return Content((through(state, out, flow, data, weights), *others))


def _inputs_are_keyed(state: State, flow: Contraction, weights: Sequence[Entries]) -> bool:
    """Whether the inputs of a weight move by what another of its axes says."""
    return any(state.uses.key_axes(w, [flow.weight_in]) for w in weights)


def _origins(state: State, flow: Contraction, neurons: Sequence[Neurons]) -> Neurons:
    """Nodes for what a weight reads that is no neuron: positions, computed quantities."""
    width = flow.data.shape[flow.data_axis]
    site = state.new_site("origin", (width,), NodeType.ORIGIN, state.pool.layer(_all(neurons)))
    ids = lay(site.ids, flow.data_axis, len(flow.data))
    return Neurons(ids.expand(flow.data.shape))


def _all(neurons: Sequence[Neurons]) -> Tensor:
    nothing = torch.empty(0, dtype=torch.long)
    return torch.cat([nothing, *(distinct(n.ids) for n in neurons)])


def _table(state: State, out: int, flow: Contraction, weights: Sequence[Entries]) -> Neurons:
    """Where nothing tells the columns of a weight apart, every one of its entries comes from a node
    of its own."""
    width, rank = flow.weight.shape[flow.weight_out], len(flow.weight)
    name = state.uses.names[weights[0].parameter]
    site = state.new_site(name, (width,), NodeType.HIDDEN, 1, out, [flow.out_axis])
    for w in weights:
        ids = lay(site.ids, flow.weight_out, rank).expand(w.ids.shape)
        state.uses.attach(w, ids, NodeType.ORIGIN, EdgeType.LINEAR)
    return Neurons(place(site.ids, [flow.out_axis], state.shape(out)))
