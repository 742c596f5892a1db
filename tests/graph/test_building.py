"""What the pass over a recording keeps apart: hidden axes, ends of weights, values by number."""

import pytest
import torch
from torch import nn

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.graph import EdgeType, NodeType
from metanet.graph.building._contents import Digit, Entries, Hidden, new_hidden_axis, whole
from metanet.graph.building._ids import NONE, place, stepping, unique_rows
from metanet.graph.building._look_up import _looked_up, _Reason
from metanet.graph.building._walk import _forgotten_after
from metanet.symmetry import LookUp, Operand
from metanet.testing import assert_graph
from metanet.tracing import Op, Ref
from symmetry.constructs import CONSTRUCTS


class TwoChoices(nn.Module):
    """Matrices by two choices, a bias by the second of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 4), nn.Linear(6, 5)
        self.weight = nn.Parameter(torch.randn(4, 5, 6, 3))
        self.bias = nn.Parameter(torch.randn(5, 3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        i, j = self.first(x).argmax(-1), self.second(x).argmax(-1)
        y = (x[:, None] @ self.weight[i, j])[:, 0] + self.bias[j]
        return self.head(torch.relu(y))


def test_each_axis_of_a_look_up_is_of_its_own_choice():
    """Row j of the bias acts on the neurons of matrices (i, j) for all i, and on no others."""
    arch = metanet.trace(TwoChoices(), torch.randn(7, 6), check_inputs=torch.randn(5, 6))
    template = arch.template
    (bias,) = (b for b in template.blocks if b.tensor == "bias")
    shared = template.nodes[bias.destination]
    assert (shared.type, shared.count) == (NodeType.SHARED, 5 * 3), "one for each of its entries"
    source, destination = template.static["edge_index"]
    is_share = template.static["edge_type"] == EdgeType.SHARE
    inside = (source >= shared.start) & (source < shared.stop)
    reached = source[is_share & inside] - shared.start
    assert torch.bincount(reached).tolist() == [4] * 15, "each stands for the first choice's four"
    assert len(torch.unique(destination[is_share & inside])) == 4 * 5 * 3


def test_look_ups_of_one_table_by_other_integers_hide_other_axes():
    table = Operand(3, (4, 8), ((), ()))

    def hidden(integers: int, nth_axis: int = 0) -> set:
        operand = Operand(integers, (5,), ((),), "int64")
        flow = LookUp(table, (operand,), (nth_axis,), nth_axis)
        entries = _looked_up(whole(3, (4, 8)), flow, [_Reason(Hidden.LOOKED_UP, integers)], (5, 8))
        return set(entries.hidden)

    assert hidden(11) == hidden(11)
    assert not hidden(11) & hidden(12)


def test_a_hidden_axis_is_a_new_one():
    hidden: dict = {}
    for _ in range(3):
        hidden[new_hidden_axis(Hidden.SUMMED, 3, hidden)] = Digit(2, 1)
    axes = list(hidden)
    entries = Entries(3, torch.zeros(1, dtype=torch.long), hidden).with_axis(axes[0], Digit(2, 1))
    assert new_hidden_axis(Hidden.SUMMED, 3, entries.hidden) == axes[0], "it is free again"
    assert len(set(axes)) == 3


def test_a_value_with_the_number_0_is_forgotten_as_well():
    op = Op(name="aten.topk", call=None, args=(Ref(2),), kwargs={}, outputs=(0, None))
    assert _forgotten_after([op], ()) == {0: [2, 0]}


def test_entries_behind_hidden_axes_act_on_the_side_that_they_vary_along():
    """The rows of a matrix that is solved for are mixed, its columns are not: they scale what the
    product makes, not what it reads."""
    model, inputs, check = CONSTRUCTS["orthogonal_by_cayley"].make()
    arch = metanet.trace(model.eval(), *inputs, check_inputs=(check, {}))
    assert_graph(arch)
    scale = [b for b in arch.template.blocks if b.type == EdgeType.SCALE]
    ends = {arch.template.nodes[b.destination].type for b in scale}
    assert scale
    assert NodeType.INPUT not in ends


# ---------------------------------------------------------------- integers


def test_nothing_stays_nothing_along_a_new_axis():
    assert stepping(torch.tensor([5, NONE]), 2, 10).tolist() == [[5, NONE], [15, NONE]]


def test_rows_come_as_they_stand():
    rows, number = unique_rows(torch.tensor([[3, 4], [1, 2], [3, 4]]))
    assert rows.tolist() == [[3, 4], [1, 2]]
    assert number.tolist() == [0, 1, 0]


def test_axes_are_placed():
    ids = torch.arange(6).view(2, 1, 3)
    assert torch.equal(place(ids, [2, None, 0], (3, 4, 2)), ids[:, 0].T[:, None].expand(3, 4, 2))


# ---------------------------------------------------------------- out of the graph


def test_summaries_are_no_checkpoint_whatever_their_number():
    """One edge for each tensor, and one entry in each tensor."""
    net = nn.Linear(1, 1)
    arch = metanet.trace(net, torch.randn(3, 1))
    coarse = metanet.to_graph(net, arch, granularity="tensor")
    assert coarse.num_edges == arch.template.num_edges
    with pytest.raises(MetanetError, match="holds summaries"):
        metanet.from_graph(coarse, arch)


def test_edges_of_several_numbers_are_no_entries():
    net = nn.Linear(2, 3)
    arch = metanet.trace(net, torch.randn(4, 2))
    graph = metanet.to_graph(net, arch).clone()
    graph.edge_attr = graph.edge_attr.repeat(1, 2)
    with pytest.raises(CheckpointError, match="2 features for each edge"):
        metanet.from_graph(graph, arch)


def test_numbers_of_edges_as_a_dense_array_stay_integers():
    arch = metanet.trace(nn.Linear(2, 3), torch.randn(4, 2))
    block = arch.template.blocks[0]
    edges = torch.arange(arch.template.num_edges).view(1, -1, 1)
    dense = block.dense(edges)
    assert dense.dtype == torch.int64
    assert torch.equal(block.flat(dense)[0, :, 0], block.edges())
