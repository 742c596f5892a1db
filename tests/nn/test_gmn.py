import pytest
import torch

from metanet import MetanetError
from metanet.graph import EdgeType
from metanet.nn import MODELS
from metanet.nn._layout import DenseLayout
from metanet.nn._tables import CONSTANT_TYPES
from nn.graphs import mixed, ready, relabel, sparse, spread


@pytest.mark.parametrize(
    "arguments",
    [
        {"statistics": False},
        {"signals": False},
        {"architecture": False},
        {"layers": 0},
        {"width": 7, "layers": 1},
        {"max_io": 2},
    ],
    ids=str,
)
def test_every_option_keeps_both_paths_equal(arguments):
    stacks = mixed()
    model = ready("gmn", stacks, **arguments)
    plain = model(stacks)
    assert torch.allclose(plain, model(sparse(stacks)), rtol=0, atol=1e-10)
    assert (model(relabel(stacks, 1)) - plain).abs().max() < 1e-10 * spread(plain)


def test_node_inputs():
    stacks = mixed()
    model = ready("gmn", stacks, probes=4)
    generator = torch.Generator().manual_seed(0)
    given, values, mask = [], [], []
    for s in stacks:
        inputs = {}
        for number, r in enumerate(s.template.nodes):
            if number % 2:
                inputs[number] = torch.randn(
                    len(s), r.count, 4, generator=generator, dtype=torch.float64
                )
        given.append(inputs)
    for s, inputs in zip(stacks, given, strict=True):
        for i in range(len(s)):
            for number, r in enumerate(s.template.nodes):
                part = inputs.get(number)
                values.append(
                    torch.zeros(r.count, 4, dtype=torch.float64) if part is None else part[i]
                )
                mask.append(torch.full((r.count,), part is not None))
    with_inputs = model(stacks, given)
    general = model(sparse(stacks), (torch.cat(values), torch.cat(mask)))
    assert torch.allclose(with_inputs, general, rtol=0, atol=1e-10)
    assert (with_inputs - model(stacks)).abs().max() > 1e-3

    with pytest.raises(MetanetError, match="there is no node range 99"):
        model(stacks, [{99: torch.zeros(1)}, {}, {}, {}, {}])
    with pytest.raises(
        MetanetError, match=r"node_inputs\[1\]\[0\] is \(1, 1\), expected .* = \(3, 1, 4\)"
    ):
        model(stacks, [{}, {0: torch.zeros(1, 1)}, {}, {}, {}])
    with pytest.raises(MetanetError, match="node_inputs has 1 entries for 5 stacks"):
        model(stacks, [{}])
    with pytest.raises(MetanetError, match="built with probes=0"):
        ready("gmn", stacks)(stacks, given)


def test_values_are_normalised_per_kind_of_edge():
    stacks = mixed()
    model = MODELS["gmn"](out_dim=1)
    model.fit_normalisation(iter(stacks))
    layout = DenseLayout(stacks, torch.device("cpu"), torch.float32)
    kinds = layout.per_edge(layout.edges["kind"].float()).long()
    z = model.values.normalised(layout)
    assert {EdgeType.LINEAR, EdgeType.BIAS}.isdisjoint(CONSTANT_TYPES)
    for kind in kinds.unique().tolist():
        if kind in CONSTANT_TYPES:
            continue
        assert abs(z[kinds == kind].median()) < 0.05
        assert 0.7 < z[kinds == kind].std() < 1.3
    with pytest.raises(MetanetError, match="fit_normalisation was given no graphs"):
        model.fit_normalisation([])


def test_dropout_acts_in_training_only():
    stacks = mixed()
    model = ready("gmn", stacks, dropout=0.5)
    assert torch.equal(model(stacks), model(stacks))
    model.train()
    assert not torch.equal(model(stacks), model(stacks))
