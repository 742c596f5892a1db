"""The relay: against messages written out edge by edge, in whatever order; options, units, gradients."""

import pytest
import torch
from torch import Tensor

from metanet import MetanetError
from metanet.graph import EdgeType, GraphStack
from metanet.nn import build
from metanet.nn._layout import DenseLayout
from metanet.nn._roles import RoleNormalisation
from metanet.nn.models.relay import Sources, views_of
from nn import irregular
from nn import templates as make
from nn.graphs import (
    everything,
    mixed,
    ready,
    relabel,
    sparse,
    spread,
    stack,
    templates,
)


@pytest.mark.parametrize(
    "arguments",
    [
        {"statistics": False},
        {"architecture": False},
        {"statistics": False, "architecture": False},
        {"passes": 1},
        {"passes": 3},
        {"backward": False},
        {"views": 3},
        {"rounds": 1},
        {"rounds": 3},
        {"width": 7},
        {"max_io": 2},
    ],
    ids=str,
)
def test_every_option_keeps_both_paths_equal(arguments):
    stacks = everything()
    model = ready("relay", stacks, **{"width": 8, **arguments})
    plain = model(stacks)
    assert torch.allclose(plain, model(sparse(stacks)), rtol=0, atol=1e-10)
    regular = mixed()
    change = model(relabel(regular, 1)) - model(regular)
    assert change.abs().max() < 1e-10 * spread(plain)


@pytest.mark.parametrize("direction", ["inward", "outward"])
@pytest.mark.parametrize("kind", [*templates(), *irregular.TEMPLATES])
def test_messages_are_what_they_are_edge_by_edge(kind, direction):
    """Against the formula, with a loop over the edges of the graph."""
    template = (templates() | {name: one() for name, one in irregular.TEMPLATES.items()})[kind]
    given = stack(template, 2)
    layered = DenseLayout([given], torch.device("cpu"), torch.float64).layered()
    generator = torch.Generator().manual_seed(3)
    rows = sum(block.size("kernel") for block in template.blocks)
    width, views = 3, 2
    gains = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    said = torch.randn(template.num_nodes, views * width, generator=generator, dtype=torch.float64)
    weights = layered.weights(
        gains.new_zeros(rows), gains.new_ones(rows), lambda z: views_of(z, views)
    )
    numbers = torch.arange(template.num_nodes, dtype=torch.float64)[:, None]
    nodes = [layer[:, 0].long() for layer in layered.by_layer(numbers)]

    layers = [getattr(layered, direction)(n, [said[of] for of in nodes], weights, gains)
              for n in range(layered.depth)]  # fmt: skip
    expected = _edge_by_edge(given, said.view(-1, views, width), gains, direction)
    assert expected.abs().max() > 0.1
    for heard, of in zip(layers, nodes, strict=True):
        graph = torch.arange(2).repeat_interleave(len(of) // 2)
        torch.testing.assert_close(heard, expected[graph, of], rtol=0, atol=1e-12)


def _edge_by_edge(given: GraphStack, said: Tensor, gains: Tensor, direction: str) -> Tensor:
    template, static = given.template, given.template.static
    heard = said.new_zeros(len(given), template.num_nodes, said.shape[2])
    reached = set(static["edge_index"][1].tolist())
    sites = {int(static["node_site"][node]) for node in reached}
    order = [
        1 + int(layer) if int(site) in sites else 0
        for layer, site in zip(static["node_layer"], static["node_site"], strict=True)
    ]
    first = 0
    for number, block in enumerate(template.blocks):
        fan = template.fan_in[number] if direction == "inward" else template.fan_out[number]
        positions = template.kernel_positions(block).tolist()
        for edge in block.edges().tolist():
            row = first + positions.index(static["kernel_pos"][edge].tolist())
            source, destination = static["edge_index"][:, edge].tolist()
            if direction == "outward" and order[source] >= order[destination]:
                continue
            from_, to = (source, destination) if direction == "inward" else (destination, source)
            phi = views_of(given.edge_attr[:, edge, 0], said.shape[1])
            heard[:, to] += gains[row] * (phi @ said[from_]) / fan**0.5
        first += block.size("kernel")
    return heard


def test_one_pass_reaches_the_end_however_deep_the_network_is():
    """A change of the first weight shows in the last neurons, and without that pass it does not."""
    given = stack(make.mlp(3, *[4] * 9, 2), 1)
    model = ready("relay", [given], width=8, passes=1, statistics=False)
    changed = given.edge_attr.clone()
    changed[:, 0] += 1
    other = GraphStack(given.template, changed)

    def last(of: GraphStack, passes: int) -> Tensor:
        layout = model.layout([of])
        layered = layout.layered()
        centre, scale = model.values.units(layout.edges)
        weights = layered.weights(centre, scale, model._views)
        kinds = model.kinds(model.edges(layout.edges))
        x = layered.by_layer(model.nodes(layout.nodes))
        for each in list(model.passes)[:passes]:
            x = each(layered, x, weights, kinds)
        return x[-1]

    assert torch.equal(last(given, 0), last(other, 0))
    assert (last(given, 1) - last(other, 1)).abs().max() > 1e-9


def test_loops_are_read_again():
    given = stack(irregular.TEMPLATES["recurrent"](), 3)
    once = ready("relay", [given], width=8, passes=1, rounds=1)
    twice = ready("relay", [given], width=8, passes=1, rounds=2)
    assert (once([given]) - twice([given])).abs().max() > 1e-6
    plain = stack(make.mlp(3, 4, 2), 3)
    assert torch.equal(once([plain]), twice([plain])), "nothing is read twice where nothing loops"


class TestUnits:
    def test_each_tensor_has_its_own(self):
        given = stack(make.mlp(6, 50, 50, 4), 20)
        factors = (0.1, 3.0, 20.0)
        blocks = [b for b in given.template.blocks if b.type == EdgeType.LINEAR]
        for block, factor in zip(blocks, factors, strict=True):
            given.edge_attr[:, block.edges()] *= factor
        units = RoleNormalisation().double()
        units.fit([given])
        layout = DenseLayout([given], torch.device("cpu"), torch.float64)
        centre, scale = units.units(layout.edges)
        is_linear = layout.edges["kind"] == int(EdgeType.LINEAR)
        assert (centre[is_linear] == 0).all(), "0 is no connection"
        expected = 0.4 * torch.tensor(factors, dtype=torch.float64)
        torch.testing.assert_close(scale[is_linear], expected, rtol=0.05, atol=0)

    def test_of_roles_never_seen_are_those_of_their_kind(self):
        units = RoleNormalisation().double()
        units.fit([stack(make.mlp(6, 16, 4), 20)])
        deeper = DenseLayout(
            [stack(make.mlp(6, 64, 64, 64, 4), 1)], torch.device("cpu"), torch.float64
        )
        _, scale = units.units(deeper.edges)
        by_width = scale * deeper.edges["fan_in"].sqrt()
        is_linear = deeper.edges["kind"] == int(EdgeType.LINEAR)
        assert by_width[is_linear].min() > 0.5 * by_width[is_linear].max() > 0.5

    def test_nothing_to_fit_is_refused(self):
        with pytest.raises(MetanetError, match="no graphs"):
            RoleNormalisation().fit([])


def test_gradients_reach_the_weights_twice():
    template = make.mlp(2, 4, 3, activation="sin")
    model = ready("relay", [stack(template, 4)], width=8, views=3)
    values = stack(template, 2).edge_attr.requires_grad_()

    def answer(values: Tensor) -> Tensor:
        return model([GraphStack(template, values)])

    assert torch.autograd.gradcheck(answer, values)
    assert torch.autograd.gradgradcheck(answer, values, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"passes": 0}, "model.passes is 0; it must be at least 1"),
        ({"views": 4}, "model.views is 4; choose 1 to 3"),
        ({"rounds": 0}, "model.rounds is 0"),
        ({"width": 0}, "model.width is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(MetanetError, match=message):
        build("relay", **arguments)


def test_sources_are_made_when_asked_for_and_again_when_nodes_changed():
    made = []
    x = [torch.zeros(1), torch.ones(1)]
    sources = Sources(x, lambda nodes: made.append(float(nodes)) or nodes + 1)
    assert (sources[1], sources[1], made) == (2, 2, [1.0])
    x[1] = torch.tensor([5.0])
    sources.forget(1)
    assert [float(s) for s in sources] == [1, 6]
    with pytest.raises(IndexError):
        sources[2]
