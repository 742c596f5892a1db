"""Graphs of networks of every kind: the laws for all of them, and their structure as one draws it
by hand."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import metanet
from alignment.networks import traced
from metanet.graph import Block, EdgeType, GraphTemplate, NodeRange, NodeType
from metanet.symmetry import leaves_of
from metanet.testing import assert_graph
from symmetry.constructs import CONSTRUCTS
from symmetry.test_truth import BIG, TRUTHS

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]
NETWORKS = [n for n in TRUTHS if n not in BIG]
NOT_FOLLOWED = {
    "unread",
    "spectral_norm",
    "spectral_norm_by_hook",
}  # not read; power iterations do not count


def architecture_of(name: str) -> metanet.Architecture:
    if name in CONSTRUCTS:
        model, inputs, check = CONSTRUCTS[name].make()
        return metanet.trace(model.eval(), *inputs, check_inputs=(check, {}))
    example = TRUTHS[name].make()
    check = (example.check_args, dict(example.check_kwargs))
    return metanet.trace(example.model, *example.args, check_inputs=check, **example.kwargs)


@pytest.mark.parametrize("name", [*CONSTRUCTS, *NETWORKS])
def test_laws_2_and_4(name):
    """One edge per entry, bits that come back, and a transform that is one of the graph; every
    tensor is followed."""
    arch = architecture_of(name)
    assert_graph(arch)
    assert bool(arch.template_warnings) == (name in NOT_FOLLOWED), arch.template_warnings


def test_the_graph_of_a_shuffle_net():
    """Units that pass half of their channels by and shuffle: each layer's neurons are nodes of
    their own."""
    arch, _ = traced("shuffle_net")
    assert_graph(arch)
    assert not arch.template_warnings
    reader = {
        n
        for n, t in arch.spec.tensors.items()
        if any(not any(True for _ in leaves_of(a)) for a in t.axes[:1])
    }
    assert reader == {"fc.weight", "fc.bias"}, "all but the outputs move"


# ---------------------------------------------------------------- by hand


def template_of(model: nn.Module, *inputs: Tensor) -> GraphTemplate:
    arch = metanet.trace(model.eval(), *inputs)
    assert_graph(arch)
    assert not arch.template_warnings
    return arch.template


def blocks_of(template: GraphTemplate, tensor: str | None) -> list[Block]:
    return [b for b in template.blocks if tensor in (b.names or (None,))]


def the_block(template: GraphTemplate, tensor: str) -> Block:
    (block,) = blocks_of(template, tensor)
    return block


def ends(template: GraphTemplate, block: Block) -> tuple[NodeRange, NodeRange]:
    return template.nodes[block.source], template.nodes[block.destination]


def counts(template: GraphTemplate, type: NodeType) -> list[int]:
    return [r.count for r in template.nodes if r.type == type]


def constant(template: GraphTemplate) -> Counter:
    """How many constant edges of each type."""
    found: Counter = Counter()
    for b in blocks_of(template, None):
        found[b.type] += b.count
    return found


def structure(template: GraphTemplate) -> tuple:
    return template.nodes, template.blocks


class _Recurrent(nn.Module):
    """An LSTM read at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class _Scan(nn.Module):
    """``state = decay * state + new`` for every token, and no weight in the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.decay, self.new, self.out = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        decay, new, state, states = self.decay(x).sigmoid(), self.new(x), torch.zeros(len(x), 6), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + new[:, t]
            states.append(state)
        return self.out(torch.stack(states, 1))


class _Beside(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.one(x).relu(), self.two(x).tanh()], -1))


class _Shuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (
            nn.Conv2d(2, 8, 1, bias=False),
            nn.Conv2d(8, 4, 1, groups=2, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.two(nn.functional.channel_shuffle(self.one(x).relu(), 2)).mean((2, 3))


class _Tokens(nn.Module):
    """A class token in front of patches, positions on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.token, self.positions = (
            nn.Parameter(torch.randn(1, 1, 6)),
            nn.Parameter(torch.randn(1, 8, 6)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.positions
        return self.head(x.relu().mean(1))


class _Sets(nn.Module):
    """Equivariant to the order of elements: ``x W1 + mean(x) W2``."""

    def __init__(self, mean_first: bool) -> None:
        super().__init__()
        self.mean_first = mean_first
        self.own, self.all, self.out = nn.Linear(3, 5), nn.Linear(3, 5, bias=False), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        hidden = self.all(mean) + self.own(x) if self.mean_first else self.own(x) + self.all(mean)
        return self.out(hidden.relu()).mean(1)


class _TriPlane(nn.Module):
    """Three feature planes sampled at the projections of a point, decoded by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.planes = nn.Parameter(torch.randn(3, 4, 5, 5))
        self.hidden, self.out = nn.Linear(4, 6), nn.Linear(6, 1)

    def forward(self, points: Tensor) -> Tensor:
        pairs = torch.stack([points[:, [0, 1]], points[:, [0, 2]], points[:, [1, 2]]])
        found = nn.functional.grid_sample(
            self.planes, pairs[:, :, None], align_corners=True
        )  # (3, 4, points, 1)
        return self.out(self.hidden(found[..., 0].sum(0).T).relu())


class _Twins(nn.Module):
    """Two inputs through the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(8, 2)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return self.head(torch.cat([self.body(one).relu(), self.body(two).relu()], -1))


class _Again(nn.Module):
    """The same block three times over, as in ALBERT."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block, self.last = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = x + self.block(x).relu()
        return self.last(x)


def test_heads_of_gpt2():
    """Three heads of four dims: fused projections in three blocks; queries and keys meet in a node
    for each head."""
    template = architecture_of("gpt2").template
    assert counts(template, NodeType.HEAD) == [3, 3]  # two layers
    fused = blocks_of(template, "transformer.h.0.attn.c_attn.weight")
    assert [b.type for b in fused] == [EdgeType.QUERY, EdgeType.KEY, EdgeType.VALUE]
    assert [b.shape for b in fused] == [(12, 12)] * 3
    assert (
        the_block(template, "transformer.h.0.attn.c_proj.weight").type == EdgeType.ATTENTION_OUTPUT
    )
    assert the_block(template, "transformer.h.0.mlp.c_fc.weight").type == EdgeType.LINEAR
    edges = constant(template)
    assert edges[EdgeType.COUPLING] == 2 * 12  # a dim of a query with one of a key
    assert edges[EdgeType.TO_HEAD] == 2 * 24
    assert edges[EdgeType.PRODUCT] == 2 * 24  # head times value
    assert edges[EdgeType.RESIDUAL] == 2 * 2 * 24


def test_heads_of_llama():
    """Four query heads share two key heads; rotated dims are sums of two; gates are products."""
    template = architecture_of("llama").template
    types = {
        n: the_block(template, f"model.layers.0.self_attn.{n}_proj.weight").type for n in "qkvo"
    }
    assert types == {
        "q": EdgeType.QUERY, "k": EdgeType.KEY, "v": EdgeType.VALUE, "o": EdgeType.ATTENTION_OUTPUT,
    }  # fmt: skip
    assert counts(template, NodeType.HEAD) == [4, 4]
    assert [b.type for b in blocks_of(template, "model.layers.0.mlp.gate_proj.weight")] == [
        EdgeType.LINEAR
    ]
    assert constant(template)[EdgeType.COUPLING] == 2 * 4 * 6  # every query dim with its key's


def test_a_tied_embedding_has_its_edges_once():
    arch = architecture_of("gpt2")
    template = arch.template
    block = the_block(template, "transformer.wte.weight")
    assert set(block.names) == {"transformer.wte.weight", "lm_head.weight"}
    assert (block.type, block.shape) == (EdgeType.EMBEDDING, (13, 12))
    (tied,) = [b for b in blocks_of(template, None) if b.type == EdgeType.TIED]
    rows, logits = ends(template, tied)
    assert (rows.type, logits.type, tied.count) == (NodeType.INPUT, NodeType.OUTPUT, 13)
    assert template.num_edges == sum(torch.Size(s).numel() for s in template.shapes.values()) + sum(
        constant(template).values()
    )


@pytest.mark.parametrize("make", [_Recurrent, _Scan])
def test_a_recurrent_graph_does_not_depend_on_the_length(make):
    short, long = (template_of(make(), torch.randn(2, length, 3)) for length in (4, 7))
    assert structure(short) == structure(long)


def test_the_graph_of_an_lstm():
    """Four gates, each a sum of what comes from the input and from the state; the state feeds them
    and the output."""
    template = template_of(_Recurrent(), torch.randn(2, 4, 3))
    gates = [r for r in template.nodes if r.type == NodeType.SUM and r.layer == 2]
    assert sorted(r.activation for r in gates) == ["sigmoid", "sigmoid", "sigmoid", "tanh"]
    assert all(r.count == 5 for r in gates)
    recurrent, out = the_block(template, "lstm.weight_hh_l0"), the_block(template, "head.weight")
    assert recurrent.source == out.source
    state, _ = ends(template, recurrent)
    assert (state.type, state.count) == (NodeType.PRODUCT, 5)
    sums = constant(template)[EdgeType.RESIDUAL]
    assert sums == 2 * 20 + 3 * 5  # gates; the cell, whose first value is the input's part alone


def test_a_scan_is_a_loop():
    template = template_of(_Scan(), torch.randn(2, 4, 3))
    (state,) = [i for i, r in enumerate(template.nodes) if r.type == NodeType.SUM]
    (decayed,) = [i for i, r in enumerate(template.nodes) if r.type == NodeType.PRODUCT]
    loop = {(b.source, b.destination) for b in blocks_of(template, None)}
    assert {(state, decayed), (decayed, state)} <= loop


def test_convolutions():
    """In groups, depthwise, transposed; then flat: parallel edges for the kernel and for the
    places."""
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2),
    )  # fmt: skip
    template = template_of(model, torch.randn(2, 4, 5, 5))
    found = {n: the_block(template, f"{n}.weight") for n in (0, 2, 4, 7)}
    assert {n: b.dense_shape for n, b in found.items()} == {
        0: (2, 3, 2, 9), 2: (6, 1, 1, 9), 4: (1, 3, 6, 4), 7: (1, 2, 3, 16),
    }  # fmt: skip
    assert found[4].type == EdgeType.TRANSPOSED
    assert found[7].type == EdgeType.LINEAR
    assert ends(template, found[7])[0].count == 3
    neurons = (NodeType.INPUT, NodeType.HIDDEN, NodeType.OUTPUT)
    assert [r.count for r in template.nodes if r.type in neurons] == [4, 6, 6, 3, 2]


def test_a_tensor_that_reads_two_sites_has_two_blocks():
    template = template_of(_Beside(), torch.randn(2, 3))
    blocks = blocks_of(template, "out.weight")
    assert [(ends(template, b)[0].activation, b.shape) for b in blocks] == [
        ("relu", (2, 4)),
        ("tanh", (2, 5)),
    ]
    assert blocks[0].destination == blocks[1].destination


def test_a_channel_shuffle():
    """Group g of the second convolution reads channels g, g + 2, ... of what was first put in
    order."""
    template = template_of(_Shuffle(), torch.randn(2, 2, 4, 4))
    source, destination = template.static["edge_index"]
    edges = torch.cat([b.edges() for b in blocks_of(template, "two.weight")])
    first, last = (
        next(r.start for r in template.nodes if r.name == f"{n}.weight") for n in ("one", "two")
    )
    order = torch.arange(8).view(2, 4).T.reshape(-1)  # what channel_shuffle does
    want = {
        (int(order[4 * g + i]), 2 * g + o) for g in range(2) for i in range(4) for o in range(2)
    }
    have = zip((source[edges] - first).tolist(), (destination[edges] - last).tolist(), strict=True)
    assert sorted(have) == sorted(want)


def test_positions_and_a_class_token():
    template = template_of(_Tokens(), torch.randn(2, 7, 4))
    positions, token = the_block(template, "positions"), the_block(template, "token")
    assert (positions.type, positions.shape) == (EdgeType.TABLE, (8, 6))
    rows, stream = ends(template, positions)
    assert (rows.type, rows.count, stream.count) == (NodeType.ROW, 8, 6)
    assert ends(template, token)[0].count == 1
    assert (
        token.destination
        == positions.destination
        == the_block(template, "embed.weight").destination
    )


def test_stacked_experts():
    """Five experts of seven neurons: neurons of their own, which read the one stream and write to
    it."""
    template = architecture_of("mixtral").template
    up, down = (f"model.layers.0.mlp.experts.{n}_proj" for n in ("gate_up", "down"))
    assert [(b.shape, b.dense_shape) for b in blocks_of(template, up)] == [
        ((5, 7, 24), (1, 35, 24, 1))
    ] * 2
    assert the_block(template, down).dense_shape == (1, 24, 35, 1)
    gate, value = blocks_of(template, up)
    assert gate.source == value.source
    assert ends(template, the_block(template, down))[0].type == NodeType.PRODUCT


@pytest.mark.parametrize("mean_first", [True, False])
def test_a_set_equivariant_layer(mean_first):
    """``x W1 + mean(x) W2``: both maps read the same neurons and flow into one sum, whatever the
    order of the terms."""
    template = template_of(_Sets(mean_first), torch.randn(2, 6, 3))
    own, all = the_block(template, "own.weight"), the_block(template, "all.weight")
    assert own.source == all.source
    assert ends(template, own)[0].type == NodeType.INPUT
    sums = {b.destination for b in blocks_of(template, None) if b.type == EdgeType.RESIDUAL}
    assert len(sums) == 1
    assert template.nodes[sums.pop()].activation == "relu"


def test_a_tri_plane_grid():
    """Every place of every plane is a row that feeds the features."""
    template = template_of(_TriPlane(), torch.rand(7, 3))
    planes = the_block(template, "planes")
    assert (planes.type, planes.dense_shape) == (EdgeType.TABLE, (1, 4, 75, 1))
    rows, features = ends(template, planes)
    assert (rows.type, rows.count, features.count) == (NodeType.ROW, 75, 4)
    assert planes.destination == the_block(template, "hidden.weight").source


def test_the_largest_of_several_neurons_is_a_neuron():
    """Maxout: four units of three pieces each, and the head reads the units."""
    template = architecture_of("maxout").template
    pieces, head = the_block(template, "a.weight"), the_block(template, "b.weight")
    (joined,) = blocks_of(template, None)
    assert (joined.source, joined.destination) == (pieces.destination, head.source)
    assert (joined.type, joined.count, template.nodes[head.source].count) == (EdgeType.JOINT, 12, 4)


def test_what_only_normalises_is_no_neuron():
    """Means over the dims of a head, in qwen3's norms of queries and keys."""
    template = architecture_of("qwen3").template
    assert not any(r.name.startswith("mean") for r in template.nodes)
    assert not counts(template, NodeType.ORIGIN)


def test_weights_shared_by_two_inputs():
    """The edges are there once, and the other neurons are tied to those that have them."""
    template = template_of(_Twins(), torch.randn(2, 3), torch.randn(2, 3))
    body = the_block(template, "body.weight")
    (tied,) = blocks_of(template, None)
    assert (tied.type, tied.count, tied.source) == (EdgeType.TIED, 4, body.destination)
    assert [b.source for b in blocks_of(template, "head.weight")] == [tied.source, tied.destination]


def test_a_block_that_is_used_again_is_a_loop():
    template = template_of(_Again(), torch.randn(2, 3))
    block = the_block(template, "block.weight")
    stream, out = block.source, block.destination
    assert {(b.source, b.destination) for b in blocks_of(template, None)} == {
        (stream, stream),
        (out, stream),
    }
    assert the_block(template, "last.weight").source == stream


def test_a_zero_weight_keeps_its_edge():
    model = nn.Linear(4, 3)
    arch = metanet.trace(model, torch.randn(2, 4))
    full = metanet.to_graph(model, arch)
    nn.init.zeros_(model.weight)
    empty = metanet.to_graph(model, arch)
    assert torch.equal(full.edge_index, empty.edge_index)
    assert empty.edge_attr.shape == (15, 1)
    assert (empty.edge_attr == 0).sum() == 12
