"""Laws 3 and 4 on traced architectures: relabelled networks get the same answer, batches are their
members."""

import pytest
import torch

import metanet
from metanet import nn as metanets
from metanet.errors import MetanetError
from metanet.graph import unstack
from metanet.nn.models.probed_gmn import _by_probe
from metanet.testing import assert_invariant, random_states
from networks import ARCHITECTURES

TRACED = [n for n in ARCHITECTURES if n != "tied"]
SMALL = {
    "gmn": {"width": 8, "layers": 1},
    "relay": {"width": 8},
    "deep_sets": {"width": 8},
}


def traced(name: str, batch: int | None = None) -> metanet.Architecture:
    make, example = ARCHITECTURES[name]
    x = example()
    return metanet.trace(make(), torch.rand(batch, *x.shape[1:]) if batch else x)


def model_for(name: str, *architectures: metanet.Architecture) -> torch.nn.Module:
    torch.manual_seed(0)
    model = metanets.build(name, out_dim=3, **SMALL[name])
    states = [random_states(a, 4, torch.Generator().manual_seed(5)) for a in architectures]
    model.fit_normalisation(
        a.template.stack({k: torch.stack([s[k] for s in some]) for k in some[0]})
        for a, some in zip(architectures, states, strict=True)
    )
    return model.double().eval()


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize("model", SMALL)
def test_law_3_relabelled_networks_get_the_same_answer(model, name):
    architecture = traced(name)
    # Deep Sets do not know which neurons a parameter joins, and so cannot see most illegal
    # relabellings
    assert_invariant(model_for(model, architecture), architecture, sensitive=model != "deep_sets")


@pytest.mark.parametrize("name", ["mlp", "siren", "cnn_batchnorm", "resnet"])
def test_law_3_with_probes(name):
    architecture = traced(name, batch=5)
    inputs = ARCHITECTURES[name][1]().shape[1:]
    torch.manual_seed(0)
    outputs = 1 if name == "siren" else 10
    model = metanets.build(
        "probed_gmn", probes=5, inputs=tuple(inputs), outputs=outputs, out_dim=3, gmn=SMALL["gmn"]
    )
    model.bind([architecture])
    assert_invariant(model.double().eval(), architecture)


def test_probes_need_recordings_of_their_size():
    model = metanets.build("probed_gmn", probes=4, inputs=(1, 8, 8), outputs=10)
    with pytest.raises(
        MetanetError, match=r"one example input of shape \(4, 1, 8, 8\), Sequential was traced with"
    ):
        model.bind([traced("mlp")])
    architecture = traced("mlp", batch=4)
    state = random_states(architecture, 1, torch.Generator())[0]
    stack = architecture.template.stack({k: v[None].float() for k, v in state.items()})
    with pytest.raises(MetanetError, match="call bind"):
        model([stack])
    model.bind([architecture])
    assert model([stack]).shape == (1, 1)


def test_answers_by_probe_wherever_the_probes_stand():
    shown = torch.randn(3, 4, 6)  # neurons, probes, positions
    for form in (shown, shown.flatten(1), shown.transpose(1, 2)):
        torch.testing.assert_close(_by_probe(form, 4), shown.mean(2))
    assert torch.equal(_by_probe(shown[:, :, 0], 4), shown[:, :, 0])
    assert _by_probe(shown[:, :3, :1], 4) is None  # what the input does not reach
    assert _by_probe(shown[:, 0, 0], 4) is None


@pytest.mark.parametrize("model", SMALL)
def test_law_4_mixed_batches_dense_and_sparse_are_the_networks_one_by_one(model):
    architectures = [traced(n) for n in ("mlp", "resnet", "grouped", "normed")]
    stacks = []
    for a in architectures:
        states = random_states(a, 2, torch.Generator().manual_seed(1))
        stacks.append(a.template.stack({k: torch.stack([s[k] for s in states]) for k in states[0]}))
    net = model_for(model, *architectures)
    with torch.no_grad():
        together = net(stacks)
        graphs = [g for s in stacks for g in unstack(s).to_data_list()]
        sparse = net(type(unstack(stacks[0])).from_data_list(graphs))
        alone = torch.cat(
            [net([type(s)(s.template, s.edge_attr[i : i + 1])]) for s in stacks for i in range(2)]
        )
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(together, sparse, rtol=1e-10, atol=1e-10)
    assert (together - together[:1]).abs()[1:].max() > 1e-3
