"""The same models on graphs of traced networks: what they meet in use."""

import pytest
import torch

import metanet
from metanet.graph import GraphStack, unstack
from metanet.nn import NeuralMetanet
from metanet.testing import assert_invariant
from metanet.zoo import networks
from nn.graphs import ready, spread

ARCHITECTURES = {
    "mlp": lambda: networks.mlp([9, 7], activation="tanh"),
    "cnn": lambda: networks.cnn(
        [4, 5], strides=[2, 1], activation="gelu", norm=True, readout="flatten"
    ),
    "resnet": lambda: networks.resnet([4, 4], activation="relu", norm=True),
}


@pytest.fixture(scope="module")
def traced():
    torch.manual_seed(0)
    return {
        name: metanet.trace(make().eval(), torch.rand(2, 1, 8, 8))
        for name, make in ARCHITECTURES.items()
    }


def stacks_of(architectures):
    generator = torch.Generator().manual_seed(0)
    stacks = []
    for a in architectures:
        values = torch.randn(3, a.template.num_edges, 1, generator=generator, dtype=torch.float64)
        stacks.append(GraphStack(a.template, values * 0.3))
    return stacks


@pytest.mark.parametrize("name", ["gmn", "relay", "deep_sets", "stat"])
def test_traced_networks_in_one_batch(name, traced):
    from torch_geometric.data import Batch

    stacks = stacks_of(traced.values())
    model = ready(name, stacks)
    batch = Batch.from_data_list([graph for s in stacks for graph in unstack(s).to_data_list()])
    dense = model(stacks)
    assert torch.allclose(dense, model(batch), rtol=0, atol=1e-10)
    assert spread(dense) > 1e-4


@pytest.mark.parametrize("model", ["gmn", "relay"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_law_3(name, model, traced):
    """Relabelled by the architecture's own symmetry: the same answer; by anything else: another."""
    model = ready(model, stacks_of([traced[name]]))
    assert isinstance(model, NeuralMetanet)
    assert_invariant(model, traced[name])
