"""Models and graphs that were copied or sent to a worker: what they know of each other is kept."""

import copy
import pickle

import pytest
import torch

import metanet
from metanet.graph import GraphStack
from metanet.nn import MODELS, NeuralMetanet, build
from metanet.nn._digest import digest
from metanet.zoo import networks
from nn.graphs import mixed, ready, templates


@pytest.fixture(scope="module")
def architecture():
    torch.manual_seed(0)
    return metanet.trace(networks.mlp([5]).eval(), torch.rand(4, 1, 8, 8))


@pytest.fixture(scope="module")
def probed(architecture):
    model = build(
        "probed_gmn", probes=4, inputs=(1, 8, 8), outputs=10, gmn={"width": 8, "layers": 1}
    )
    model.bind([architecture])
    return model.eval()


def stack_of(architecture, graphs=3):
    values = torch.randn(graphs, architecture.template.num_edges, 1)
    return GraphStack(architecture.template, values)


def test_a_template_is_known_by_what_it_says(architecture):
    template = architecture.template
    assert digest(pickle.loads(pickle.dumps(template))) == digest(template)
    assert digest(copy.deepcopy(template)) == digest(template)
    others = [digest(other) for other in templates().values()]
    assert len({digest(template), *others}) == 1 + len(others)


def test_a_model_answers_graphs_from_a_worker(probed, architecture):
    """The stack's template is another object there."""
    given = stack_of(architecture)
    sent = pickle.loads(pickle.dumps(given))
    assert sent.template is not given.template
    assert torch.equal(probed([sent]), probed([given]))


def test_a_copied_model_answers_the_same(probed, architecture):
    given = stack_of(architecture)
    again = copy.deepcopy(probed)
    assert torch.equal(again([given]), probed([given]))
    assert torch.equal(again([copy.deepcopy(given)]), probed([given]))


@pytest.mark.parametrize("name", ["gmn", "relay", "deep_sets", "stat"])
def test_models_survive_copying(name):
    model = ready(name, mixed())
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(mixed()), model(mixed()))
        assert again.arguments == model.arguments and repr(again) == repr(model)


def test_a_model_with_required_arguments_survives_copying():
    class Strict(NeuralMetanet):
        def __init__(self, width, out_dim=1):
            super().__init__()
            self.head = torch.nn.Linear(width, out_dim)

    assert copy.deepcopy(Strict(3)).arguments == {"width": 3, "out_dim": 1}
    with pytest.raises(TypeError, match="width"):
        Strict()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_says_how_it_was_made(name):
    """In one line, and so that the line makes it again."""
    cls = MODELS[name]
    assert repr(cls(out_dim=3)) == f"{cls.__name__}(out_dim=3)"
    assert repr(build("gmn", width=8, layers=1)) == "GMN(width=8, layers=1)"
