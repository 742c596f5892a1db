"""Matchers of many checkpoints."""

from itertools import combinations

import pytest
import torch

import metanet
from alignment.networks import floating, random_state, traced
from metanet import MetanetError
from metanet.alignment import MATCHERS

MANY = [n for n, m in MATCHERS.items() if m.many]


def same(x, y):
    return all(torch.equal(x[n], y[n]) for n in y)


def counted(state):
    return {n: x for n, x in floating(state).items() if "running" not in n}


def pairwise(states):
    """The objective by its definition."""
    return sum(
        float((x[n].double() * y[n].double()).sum())
        for x, y in combinations(states, 2)
        for n in counted(states[0])
    )


@pytest.mark.parametrize("method", MANY)
def test_the_objective_is_the_sum_over_all_pairs(method):
    arch, _ = traced("resnet18")
    states = [random_state("resnet18", s) for s in (1, 2, 3)]
    als = metanet.align(states, arch=arch, method=method)
    assert als[0].objective[0] == pytest.approx(pairwise(states))
    assert als[0].objective[-1] == pytest.approx(
        pairwise([al(s) for al, s in zip(als, states, strict=True)]), rel=1e-5
    )
    assert als[0].objective[-1] > als[0].objective[0]


@pytest.mark.parametrize("method", MANY)
@pytest.mark.parametrize("network", ["mlp", "gpt2"])
def test_relabellings_of_one_network_all_meet(method, network):
    arch, _ = traced(network)
    a = random_state(network, 1)
    g = torch.Generator().manual_seed(1)
    states = [arch.spec.sample(g)(a) for _ in range(4)]
    for to, where in ((None, None), (a, a)):
        als = metanet.align(
            states, to=to, arch=arch, method=method, restarts=8 if method == "merge_many" else 1
        )
        moved = [al(s) for al, s in zip(als, states, strict=True)]
        assert all(same(s, where or moved[0]) for s in moved)


@pytest.mark.parametrize("method", MANY)
def test_what_stays_does_not_move(method):
    """Aligned to one of them, they stand to each other as they do without."""
    arch, _ = traced("vgg16")
    a, b, c = (random_state("vgg16", s) for s in (1, 2, 3))
    free = metanet.align([a, b, c], arch=arch, method=method)
    onto = metanet.align([b, c], to=a, arch=arch, method=method)
    for al, other, state in zip(onto, free[1:], (b, c), strict=True):
        assert same(free[0].transform(al(state)), other(state))
    one = metanet.align(b, to=a, arch=arch, method=method)
    assert one.objective[-1] == pytest.approx(pairwise([a, one(b)]), rel=1e-5)


def test_going_round_leads_back():
    arch, _ = traced("llama")
    states = [random_state("llama", s) for s in (1, 2, 3)]
    t = [al.transform for al in metanet.align(states, arch=arch, method="universe")]
    onto = {(p, q): t[p].inverse() @ t[q] for p in range(3) for q in range(3)}  # q onto p
    round_trip = onto[0, 1] @ onto[1, 2] @ onto[2, 0]
    assert same(round_trip(states[0]), states[0])


def test_the_universe_is_better_than_pairs_through_one_network():
    arch, _ = traced("resnet18")
    states = [random_state("resnet18", s) for s in range(4)]
    als = metanet.align(states, arch=arch, method="universe")
    hub = [states[0], *(metanet.align(s, to=states[0], arch=arch)(s) for s in states[1:])]
    assert als[0].objective[-1] > pairwise(hub)


def test_restarts_and_polishing_help():
    arch, _ = traced("mlp")
    states = [random_state("mlp", s) for s in range(3)]
    plain, polished, more = (
        metanet.align(states, arch=arch, method="universe", **options)[0].objective[-1]
        for options in ({"polish": False}, {}, {"restarts": 8})
    )
    assert plain <= polished <= more
    assert plain < more


def test_one_checkpoint_alone_is_refused():
    arch, _ = traced("mlp")
    for method in MANY:
        with pytest.raises(MetanetError, match="give two or more, or to="):
            metanet.align([random_state("mlp", 1)], arch=arch, method=method)
