"""Neurons aligned inside the merge: a relabelled network merges as if it had never been
relabelled."""

from functools import cache

import pytest
import torch

import metanet
from alignment.networks import NETWORKS, batches, floating, random_state, traced
from metanet.merging import METHODS

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*groups stay as they are", "ignore:LSTM with projections is not supported with oneDNN"
)
FREE = [
    n for n, m in METHODS.items() if not m.needs and m.models[0] <= 2 and n != "passthrough"
]  # it takes one model
OPTIONS = {"linear": {"weights": [0.3, 0.7]}, "slerp": {"t": 0.25}, "bcwi": {"alpha": 0.3}}


def same(x, y):
    return x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x)


@cache
def base_of(network):
    return random_state(network, 1)


@cache
def tuned(network, seed):
    """Near the base, as fine-tuned networks are; tied names stay one tensor."""
    generator = torch.Generator().manual_seed(seed)
    known = traced(network)[0].spec.tensors
    state = {
        n: t + 0.05 * t.std() * torch.randn(t.shape, generator=generator)
        if t.is_floating_point() and t.ndim > 1
        else t.clone()
        for n, t in base_of(network).items()
    }
    return {n: state[known[n].tied_to or n] if n in known else t for n, t in state.items()}


@cache
def planted(network, seed=2):
    return traced(network)[0].spec.sample(torch.Generator().manual_seed(seed))


def models(method, *states):
    """As many as the method takes."""
    return list(states[-(METHODS[method].models[1] or len(states)) :])


@cache
def alignments(network, own):
    """Of the network's own relabelling, or of a fine-tuned one's, onto the base."""
    state = base_of(network) if own else tuned(network, 3)
    arch = traced(network)[0]
    kept = base_of(network) if own else tuned(network, 2)
    # The linear average has no use for a base but to align to.
    merged = metanet.merge(
        [kept, planted(network)(state)], align="weight", arch=arch, base=base_of(network)
    )
    return merged.alignments


@pytest.mark.parametrize("network", NETWORKS)
def test_the_planted_relabelling_is_undone_and_others_stay(network):
    kept, moved = alignments(network, own=False)
    assert not kept.transform.elements
    together = moved.transform @ planted(network)
    assert planted(network).elements and all(
        torch.equal(e, torch.arange(e.shape[-1]).expand(e.shape))
        for e in together.elements.values()
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", FREE)
def test_a_network_merged_with_its_own_relabelling_is_itself(method, network):
    a = base_of(network)
    relabelled = planted(network)(a)
    assert not same(a, relabelled)
    given = models(method, a, relabelled)
    needs_base = METHODS[method].base == "required"
    merged = metanet.merge(
        given, method, base=a if needs_base else None,
        align=list(alignments(network, own=True))[-len(given) :], **OPTIONS.get(method, {}),
    )  # fmt: skip
    assert same(floating(dict(merged)), floating(a))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", FREE)
def test_relabelled_fine_tuned_networks_merge_as_if_they_were_not(method, network):
    one, two = tuned(network, 2), tuned(network, 3)
    base = base_of(network)
    without = None if METHODS[method].base == "none" else base
    expected = metanet.merge(
        models(method, one, two), method, base=without, seed=5, **OPTIONS.get(method, {})
    )
    given = models(method, one, planted(network)(two))
    found = metanet.merge(
        given, method, base=base, align=list(alignments(network, own=False))[-len(given) :], seed=5,
        **OPTIONS.get(method, {}),
    )  # fmt: skip
    assert same(dict(found), dict(expected))
    blind = metanet.merge(given, method, base=without, seed=5, **OPTIONS.get(method, {}))
    assert not all(
        torch.equal(blind[n], expected[n]) for n in blind
    )  # so that the above is not for nothing


def test_all_models_come_to_the_base_the_first_one_too():
    states = [tuned("mlp", seed) for seed in (2, 3)]
    given = [planted("mlp", seed)(state) for seed, state in zip((4, 5), states, strict=True)]
    common = {"method": "task_arithmetic", "base": base_of("mlp")}
    merged = metanet.merge(given, **common, align="weight", arch=traced("mlp")[0])
    expected = dict(metanet.merge(states, **common))
    assert same(dict(merged), expected)
    assert not same(dict(metanet.merge(given, **common)), expected)


@pytest.mark.parametrize("method", ["activation", "combined"])
def test_matchers_that_read_data_align_inside_the_merge(method):
    arch, example = traced("resnet18")
    a = base_of("resnet18")
    merged = metanet.merge(
        [a, planted("resnet18")(a)], align=method, arch=arch, model=example.model,
        data=batches("resnet18", 16, 16),
    )  # fmt: skip
    assert merged.alignments[0] is None
    assert same(floating(dict(merged)), floating(a))


@pytest.mark.parametrize("method", ["merge_many", "universe"])
def test_without_a_base_matchers_of_many_networks_move_all(method):
    arch, example = traced("mlp")
    a = base_of("mlp")
    merged = metanet.merge([planted("mlp", s)(a) for s in (3, 4, 5)], align=method, arch=arch)
    outputs = []
    for state in (a, dict(merged)):
        example.model.load_state_dict(state)
        with torch.no_grad():
            outputs.append(example.model.eval()(*example.args))
    assert len(merged.alignments) == 3
    assert torch.allclose(*outputs, atol=1e-5)


def test_the_architecture_is_traced_from_the_module_and_the_data():
    _, example = traced("mlp")
    a = base_of("mlp")
    merged = metanet.merge(
        [a, planted("mlp")(a)],
        "slerp",
        align="weight",
        model=example.model,
        data=[(example.args, None)],
    )
    assert same(floating(dict(merged)), floating(a))


def test_an_alignment_that_was_saved_does_as_well(tmp_path):
    one, two = tuned("vit", 2), planted("vit")(tuned("vit", 3))
    alignments("vit", own=False)[1].save(tmp_path / "al.safetensors")
    loaded = metanet.Alignment.load(tmp_path / "al.safetensors")
    found = metanet.merge([one, two], "slerp", align=[None, loaded])
    assert same(dict(found), dict(metanet.merge([one, tuned("vit", 3)], "slerp")))


def test_options_reach_the_matcher():
    arch, _ = traced("mlp")
    a, b = random_state("mlp", 1), random_state("mlp", 2)
    merged = metanet.merge(
        [a, b], align="weight", align_options={"restarts": 3, "balance": True}, arch=arch, seed=4
    )
    assert merged.recipe["alignments"][1]["options"]["restarts"] == 3
    assert merged.recipe["alignments"][1]["seed"] == 4
    wanted = metanet.align(b, to=a, arch=arch, restarts=3, balance=True, seed=4)(b)
    assert same(dict(merged), dict(metanet.merge([a, wanted])))
