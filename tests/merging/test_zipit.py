"""Zipping features within and across networks."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from merging.features import EXAMPLES, FREE, Mlp, Residual, batches, example, planted, run, state_of
from metanet import MetanetError
from metanet.errors import CheckpointError
from metanet.merging.features._match import zip_features


def zipped(states, model, inputs, arch, **options):
    data = batches(inputs, 64, 32)
    return metanet.merge(states, "zipit", arch=arch, model=model, data=data, **options)


@pytest.mark.parametrize("name", EXAMPLES)
def test_permutations_alone_are_alignment_and_the_average(name):
    arch, model, inputs = example(name)
    states = [state_of(model, s) for s in (1, 2, 3)]
    data = batches(inputs, 64, 32)
    common = {"arch": arch, "model": model, "data": data}
    got = metanet.merge(states, "zipit", matching="permutation", **common)
    want = metanet.merge(states, "linear", align="activation", **common)
    plain = metanet.merge(states, "linear")
    for key in want:
        assert torch.allclose(got[key], want[key], rtol=1e-14, atol=1e-15), key
    assert any(not torch.allclose(got[key], plain[key]) for key in want)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("copies", [2, 3])
def test_a_network_zipped_with_its_relabellings_is_itself(name, copies):
    arch, model, inputs = example(name)
    state = state_of(model, 1)
    others = [arch.spec.sample(torch.Generator().manual_seed(s))(state) for s in range(copies - 1)]
    merged = zipped([state, *others], model, inputs, arch)
    assert all(torch.equal(merged[n], t) for n, t in state.items())
    assert {merged.report[f"features of {g}"] for g in FREE[name]} == {
        f"{arch.spec[g].size} across networks, 0 within one" for g in FREE[name]
    }


def test_zipit_stops_after_so_many_batches():
    arch, model, inputs = example("mlp")
    states, data = [state_of(model, s) for s in (1, 2)], batches(inputs, 16, 64)
    first, alone, every = (
        metanet.merge(states, "zipit", arch=arch, model=model, data=d, **more)
        for d, more in ((data, {"batches": 1}), (data[:1], {}), (data, {}))
    )
    assert all(torch.equal(first[n], t) for n, t in alone.items())
    assert any(not torch.equal(first[n], t) for n, t in every.items())


class Even(Residual):
    def __init__(self):
        super().__init__(6, 4, 8)


def networks_with_room():
    """Two networks that need half of their features each."""
    model = Even().double().eval()
    arch = metanet.trace(model, torch.randn(2, 2, 4, 4).double())
    states = []
    for seed in (1, 2):
        state = state_of(model, seed)
        for pairs in ([(0, 1), (2, 3)], [(4, 5)], [(6, 7)]):
            wide = [g for g in FREE["residual"] if arch.spec[g].size > pairs[0][0]]
            state = planted(arch, state, pairs, wide)
        states.append(state)
    return arch, model, states, EXAMPLES["residual"][1]


def test_two_networks_with_room_go_into_one():
    arch, model, states, inputs = networks_with_room()
    x = inputs(7)
    both = [run(model, state, x) for state in states]
    merged = zipped(states, model, inputs, arch, beta=1.0)
    assert merged.report["features of into.1"] == "0 across networks, 8 within one"
    assert torch.allclose(run(model, merged, x), (both[0] + both[1]) / 2, rtol=1e-10, atol=1e-10)

    stacked = zipped(states, model, inputs, arch, beta=1.0, heads="stack")
    wide = Even().double()
    wide.head = nn.Linear(24, 6).double()
    assert torch.allclose(run(wide, stacked, x), torch.cat(both, 1), rtol=1e-10, atol=1e-10)

    picked = run(model, zipped(states, model, inputs, arch, beta=1.0, heads=[1, 0, 1]), x)
    want = torch.stack([both[1][:, 0], both[0][:, 1], both[1][:, 2]], 1)
    assert torch.allclose(picked, want, rtol=1e-10, atol=1e-10)

    across = run(model, zipped(states, model, inputs, arch, beta=0.0), x)
    assert (across - (both[0] + both[1]) / 2).abs().max() > 1e-2


def test_beyond_the_stop_a_network_stays_its_own():
    arch, model, states, inputs = networks_with_room()
    x = inputs(7)
    with pytest.raises(MetanetError, match="cuts through the neurons of stem"):
        zipped(states, model, inputs, arch, stop=["into.1.*", "norms.1.*", "out.1.*", "head.*"])
    with pytest.raises(MetanetError, match=r"out\.1\.weight reads into\.1"):
        zipped(states, model, inputs, arch, stop=["into.1.*", "norms.1.*"])
    with pytest.raises(MetanetError, match="no tensor is called like 'body"):
        zipped(states, model, inputs, arch, stop="body*")
    merged = [zipped(states, model, inputs, arch, beta=1.0, stop="head.*", task=t) for t in (0, 1)]
    for state, each in zip(states, merged, strict=True):
        assert torch.allclose(run(model, each, x), run(model, state, x), rtol=1e-10, atol=1e-10)
        assert torch.equal(each["head.bias"], state["head.bias"])
    assert all(
        torch.equal(merged[0][n], merged[1][n]) for n in states[0] if not n.startswith("head")
    )


def test_mlp_beyond_the_stop_reads_zipped_features():
    """Dense matrices by hand: M diag(W) U below, W U at the stop, W beyond."""
    arch, model, inputs = example("mlp")
    states = [state_of(model, s) for s in (1, 2)]
    data = batches(inputs, 64, 32)
    with torch.no_grad():
        shown = [
            F.gelu(torch.cat([x for (x, _) in data]) @ s["a.weight"].T + s["a.bias"])
            for s in states
        ]
    correlations = np.corrcoef(torch.cat(shown, 1).T.numpy())
    cluster = zip_features(correlations, 2, 0.3, 1.0)
    u = torch.nn.functional.one_hot(
        torch.from_numpy(cluster), 8
    ).double()  # (model, feature, zipped)
    m = u / u.sum((0, 1))
    merged = metanet.merge(
        states, "zipit", arch=arch, model=model, data=data, beta=1.0, stop=["b.*", "head.*"], task=1
    )  # fmt: skip
    for key in ("a.weight", "a.bias"):
        want = sum(m[k].T @ s[key].view(8, -1) for k, s in enumerate(states)).view(
            states[0][key].shape
        )
        assert torch.allclose(merged[key], want, rtol=1e-12, atol=1e-12)
    assert torch.allclose(merged["b.weight"], states[1]["b.weight"] @ u[1], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(merged[n], states[1][n]) for n in ("b.bias", "head.weight", "head.bias"))

    whole = metanet.merge(states, "zipit", arch=arch, model=model, data=data, beta=1.0)
    with torch.no_grad():
        second = [
            torch.tanh(h @ s["b.weight"].T + s["b.bias"])
            for h, s in zip(shown, states, strict=True)
        ]
    inner = zip_features(np.corrcoef(torch.cat(second, 1).T.numpy()), 2, 0.3, 1.0)
    v = torch.nn.functional.one_hot(torch.from_numpy(inner), 7).double()
    n = v / v.sum((0, 1))
    assert ((u.sum(1) == 2).any() and (v.sum(1) == 2).any()) or (
        u.sum(1) == 0
    ).any()  # merged within a network too
    want = sum(n[k].T @ s["b.weight"] @ u[k] for k, s in enumerate(states))
    assert torch.allclose(whole["b.weight"], want, rtol=1e-12, atol=1e-12)
    want = sum(s["head.weight"] @ v[k] for k, s in enumerate(states)) / 2
    assert torch.allclose(whole["head.weight"], want, rtol=1e-12, atol=1e-12)


def correlations_of(k, n, seed):
    generator = np.random.default_rng(seed)
    return np.corrcoef(generator.normal(size=(k * n, 3)) @ generator.normal(size=(3, 40)))


def plain_zip(correlations, n, alpha, beta):
    """Of two networks, written down step by step: sets of features, and every correlation looked at
    in each step."""
    sets = [{i} for i in range(2 * n)]
    fit = {(i, j): correlations[i, j] for i in range(2 * n) for j in range(2 * n) if i != j}
    room = [int(n // 2 * beta)] * 2

    def has(s, m):
        return any(f // n == m for f in s)

    while sum(map(bool, sets)) > n:
        allowed = {
            p: c for p, c in fit.items()
            if p[0] < p[1] and all(room[m] > 0 or not (has(sets[p[0]], m) and has(sets[p[1]], m))
                                 for m in (0, 1))
        }  # fmt: skip
        i, j = max(allowed, key=allowed.get)
        for m in (0, 1):
            room[m] -= has(sets[i], m) and has(sets[j], m)
        sets[i] |= sets[j]
        sets[j] = set()
        others = [x for x in range(2 * n) if x not in (i, j) and sets[x]]
        for x in others:
            fit[i, x] = fit[x, i] = alpha * min(fit[i, x], fit[j, x])
        fit = {p: c for p, c in fit.items() if j not in p}
    return {frozenset(s) for s in sets if s}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 1.0), (0.9, 0.5), (0.01, 0.25), (0.3, 0.0)])
def test_zipping_goes_by_the_rules(seed, alpha, beta):
    correlations = correlations_of(2, 9, seed)
    found = zip_features(correlations, 2, alpha, beta).reshape(-1)
    assert {frozenset(np.flatnonzero(found == c)) for c in range(9)} == plain_zip(
        correlations, 9, alpha, beta
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_features_of_several_networks_fill_one(k, seed):
    correlations = correlations_of(k, 6, seed)
    for alpha, beta in ((0.0, 1.0), (0.3, 0.0), (0.3, 0.5), (1.0, 1.0)):
        found = zip_features(correlations, k, alpha, beta)
        assert found.shape == (k, 6)
        assert set(found.flat) == set(range(6))
    if k == 2:
        assert all(len(set(row)) == 6 for row in zip_features(correlations, 2, 0.3, 0.0))
        assert (np.bincount(zip_features(correlations, 2, 0.0, 1.0).flat) == 2).all()


def test_features_that_never_vary_go_together():
    """They correlate with nothing; without care two networks' would be kept apart, at the cost of
    living ones."""
    arch, model, inputs = example("mlp")
    state = state_of(model, 1)
    state["a.weight"][[2, 5]] = 0.0
    other = arch.spec.sample(torch.Generator().manual_seed(3))(state)
    merged = zipped([state, other], model, inputs, arch, beta=1.0)
    assert merged.report["features of a"] == "8 across networks, 0 within one"


def test_zipit_refuses_what_it_cannot_do():
    arch, model, inputs = example("mlp")
    states = [state_of(model, s) for s in (1, 2)]
    for wrong, says in (
        ({"matching": "best"}, "greedy, permutation"), ({"alpha": 2}, "alpha=2"), ({"beta": -1}, "beta=-1"),
        ({"heads": "keep"}, "'stack'"), ({"heads": [0, 1]}, "2 numbers, but head"),
        ({"heads": [0, 1, 2]}, "0 to 1"), ({"heads": "stack", "stop": "head.*"}, "beyond the stop"),
        ({"task": 2}, "0 to 1"), ({"task": 1.5}, "0 to 1"),
    ):  # fmt: skip
        with pytest.raises(MetanetError, match=says):
            zipped(states, model, inputs, arch, **wrong)
    with pytest.raises(MetanetError, match="needs"):
        metanet.merge(states, "zipit", arch=arch, model=model)
    with pytest.raises(CheckpointError):
        metanet.merge(
            [states[0], Mlp(9).state_dict()],
            "zipit",
            arch=arch,
            model=model,
            data=batches(inputs, 4),
        )
