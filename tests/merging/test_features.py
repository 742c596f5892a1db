import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from metanet import MetanetError
from metanet.errors import CheckpointError
from metanet.merging._features import along, roles_of
from metanet.merging._features_fold import clusters
from metanet.merging._features_free import free_groups
from metanet.merging._features_match import zip_features
from metanet.merging._features_pairs import Pairs
from metanet.verification import redraw


class Mlp(nn.Module):
    def __init__(self, a=8, b=7):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, a), nn.Linear(a, b), nn.Linear(b, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.b(F.gelu(self.a(x)))))


class Residual(nn.Module):
    """Two blocks on one stream, then flattened."""

    def __init__(self, stream=6, a=5, b=7):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, stream, 3, padding=1, bias=False), nn.BatchNorm2d(stream)
        self.into = nn.ModuleList(nn.Conv2d(stream, n, 3, padding=1) for n in (a, b))
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, (a, b)))
        self.out = nn.ModuleList(nn.Conv2d(n, stream, 1) for n in (a, b))
        self.depthwise = nn.Conv2d(stream, stream, 3, groups=stream)
        self.head = nn.Linear(stream * 4, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for into, norm, out in zip(self.into, self.norms, self.out, strict=True):
            x = x + out(F.silu(norm(into(x))))
        return self.head(torch.tanh(self.depthwise(x)).flatten(1))


class Transformer(nn.Module):
    """One block; its stream and its heads can't be merged, its hidden units can."""

    def __init__(self, hidden=9):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.one, self.two = nn.LayerNorm(8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, hidden), nn.Linear(hidden, 8)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(self.one(x)).chunk(3, -1))
        x = x + self.proj((torch.softmax(q @ k.mT / 2, -1) @ v).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.gelu(self.up(self.two(x)))))


EXAMPLES = {
    "mlp": (Mlp, lambda n: torch.randn(n, 5).double()),
    "residual": (Residual, lambda n: torch.randn(n, 2, 4, 4).double()),
    "transformer": (Transformer, lambda n: torch.randn(n, 5, 3).double()),
}
FREE = {
    "mlp": {"a", "b"},
    "residual": {"stem", "into.0", "into.1"},
    "transformer": {"up"},
}


def example(name):
    """Architecture, module and inputs in float64."""
    make, inputs = EXAMPLES[name]
    model = make().double().eval()
    return metanet.trace(model, inputs(2)), model, inputs


def state_of(model, seed):
    return redraw(model.state_dict(), torch.Generator().manual_seed(seed), model=model)


def run(model, state, x):
    model.load_state_dict(dict(state))
    with torch.no_grad():
        return model.eval()(x)


def planted(arch, state, pairs, groups=None):
    """Neurons j of the groups (all free ones) made like neurons i; what reads them is left as it is."""
    roles = roles_of(arch.template)
    groups = free_groups(arch, state)[0] if groups is None else groups
    kept, gone = torch.tensor(pairs).T

    def act(name):
        def copy(tensor, at, group, number):
            if group not in groups or not roles.makes(name, number):
                return tensor
            return tensor.index_copy(at, gone, tensor.index_select(at, kept))

        return copy

    return {n: along(t, arch.spec.tensors[n].axes, act(n)) if n in arch.spec.tensors else t for n, t in state.items()}


# ---------------------------------------------------------------- which neurons may become one


@pytest.mark.parametrize("name", EXAMPLES)
def test_neurons_may_become_one_where_only_weights_read_them(name):
    arch, model, _ = example(name)
    free, why, _ = free_groups(arch, model.state_dict())
    assert set(free) == FREE[name]
    assert set(why) == {g.name for g in arch.spec.groups} - FREE[name]
    if name == "transformer":
        assert "layer norm" in why["embed"]
        assert sum("heads" in reason for reason in why.values()) == 3


@pytest.mark.parametrize(
    "between",
    [
        nn.Softmax(-1), nn.LayerNorm(8), nn.GroupNorm(2, 8), lambda x: x - x.mean(1, keepdim=True),
        lambda x: x * x.amax(1, keepdim=True), lambda x: x / x.norm(dim=1, keepdim=True), lambda x: x.cumsum(1),
    ],
)  # fmt: skip
def test_whatever_looks_at_all_neurons_forbids_merging(between):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.between = nn.Linear(5, 8), nn.Linear(8, 3), between

        def forward(self, x):
            return self.b(self.between(self.a(x)))

    arch = metanet.trace(Net(), torch.randn(4, 5))
    free, _, _ = free_groups(arch, Net().state_dict())
    assert free == []


# ---------------------------------------------------------------- greedy pairs


def test_pairs_are_the_best_ones_at_every_step():
    scores = np.random.default_rng(0).normal(size=(14, 14))
    scores += scores.T
    np.fill_diagonal(scores, -np.inf)
    pairs, plain = Pairs(scores.copy()), scores.copy()
    for step in range(13):
        i, j, score = pairs.best()
        assert score == plain.max() == plain[i, j]
        row = np.minimum(plain[i], plain[j]) + 0.1 * step
        plain[j] = plain[:, j] = -np.inf
        row[[i, j]] = -np.inf
        plain[i] = plain[:, i] = row
        pairs.join(i, j, row.copy())
    assert pairs.best()[2] == -np.inf


def test_pairs_that_are_forbidden_never_meet():
    scores = np.ones((6, 6)) + np.eye(6)
    scores[:3, :3] = 5.0
    pairs = Pairs(scores)
    assert pairs.best()[2] == 5.0
    pairs.forbid(np.array([True, True, True, False, False, False]))
    i, j, score = pairs.best()
    assert score == 1.0
    assert not (i < 3 and j < 3)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_clusters_are_those_of_the_means(share):
    """Against a plain version that computes every mean."""
    points = np.random.default_rng(1).normal(size=(11, 4))
    squared = ((points[:, None] - points) ** 2).sum(-1)
    groups = [[i] for i in range(11)]
    for _ in range(min(int(share * 11), 10)):
        means = [points[g].mean(0) for g in groups]
        far = {
            (i, j): ((means[i] - means[j]) ** 2).sum() for i in range(len(groups)) for j in range(i + 1, len(groups))
        }
        i, j = min(far, key=far.get)
        groups[i] += groups.pop(j)
    want = sorted(map(sorted, groups))
    found = clusters(squared, 1.0, share)
    assert [list(np.flatnonzero(found == k)) for k in range(found.max() + 1)] == want


def test_threshold_is_a_share_of_the_largest_distance():
    points = np.array([0.0, 0.1, 5.0, 5.2, 10.0])
    squared = (points[:, None] - points) ** 2
    assert clusters(squared.copy(), 0.011, 1.0).tolist() == [0, 0, 1, 2, 3]
    assert clusters(squared.copy(), 0.021, 1.0).tolist() == [0, 0, 1, 1, 2]
    assert clusters(squared.copy(), 0.0, 1.0).tolist() == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------- ifm


WIDTHS = {
    "mlp": lambda s: Mlp(*(len(s[f"{n}.bias"]) for n in "ab")),
    "residual": lambda s: Residual(len(s["norm.bias"]), *(len(s[f"into.{i}.bias"]) for i in (0, 1))),
    "transformer": lambda s: Transformer(len(s["up.bias"])),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_duplicates_shrink_away_and_the_function_stays(name):
    arch, model, inputs = example(name)
    state = planted(arch, state_of(model, 1), [(0, 2), (0, 4), (1, 3)])
    x = inputs(6)
    want = run(model, state, x)
    merged = metanet.merge([state], "ifm", arch=arch, threshold=1e-6)
    for group in FREE[name]:
        size = arch.spec[group].size
        assert merged.report[f"features of {group}"] == f"{size - 3} of {size}"
    small = WIDTHS[name](merged).double()
    assert merged.report["parameters"] == sum(merged[n].numel() for n in arch.spec.tensors)
    assert merged.report["share of parameters"] < 1
    assert torch.allclose(run(small, merged, x), want, rtol=1e-10, atol=1e-10)
    kept = metanet.merge([state], "ifm", arch=arch, threshold=1e-6, shrink=False)
    for key, tensor in state.items():
        assert torch.equal(kept[key], tensor)  # equal neurons have their own mean


@pytest.mark.parametrize("name", EXAMPLES)
def test_unlike_neurons_change_the_function_alike_in_both_shapes(name):
    arch, model, inputs = example(name)
    state, x = state_of(model, 2), inputs(6)
    want = run(model, state, x)
    merged = metanet.merge([state], "ifm", arch=arch, threshold=1.0, share=0.4)
    assert all(
        v.startswith(
            str(
                arch.spec[k.removeprefix("features of ")].size
                - int(0.4 * arch.spec[k.removeprefix("features of ")].size)
            )
        )
        for k, v in merged.report.items()
        if k.startswith("features")
    )
    narrow = run(WIDTHS[name](merged).double(), merged, x)
    assert (narrow - want).abs().max() > 1e-2 * want.std()
    same_shape = metanet.merge([state], "ifm", arch=arch, threshold=1.0, share=0.4, shrink=False)
    assert {n: t.shape for n, t in same_shape.items()} == {n: t.shape for n, t in state.items()}
    assert torch.allclose(run(model, same_shape, x), narrow, rtol=1e-10, atol=1e-10)


def test_nothing_is_merged_below_the_threshold():
    arch, model, _ = example("residual")
    state = state_of(model, 3)
    merged = metanet.merge([state], "ifm", arch=arch, threshold=0.0)
    assert merged.report["share of parameters"] == 1.0
    assert all(torch.equal(merged[n], t) for n, t in state.items())


def test_neurons_behind_a_norm_are_compared_by_what_they_do():
    """Twice the weight with four times the variance is the same neuron."""
    arch, model, _ = example("residual")
    state = planted(arch, state_of(model, 4), [(0, 3)])
    plain = dict(state)
    state["into.0.weight"] = state["into.0.weight"].clone()
    state["into.0.weight"][3] *= 2
    for name, factor in (("into.0.bias", 2), ("norms.0.running_mean", 2), ("norms.0.running_var", 4)):
        state[name] = state[name].clone()
        state[name][3] *= factor
    merged = metanet.merge([state], "ifm", arch=arch, threshold=1e-3)
    assert merged.report["features of into.0"] == "4 of 5"
    for key in ("into.0.weight", "norms.0.running_var"):
        state[key] = plain[key]  # now another neuron
    merged = metanet.merge([state], "ifm", arch=arch, threshold=1e-3)
    assert merged.report["features of into.0"] == "5 of 5"


class Normed(nn.Module):
    def __init__(self, n=4):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, n), nn.BatchNorm1d(n), nn.Linear(n, 2)

    def forward(self, x):
        return self.b(torch.relu(self.norm(self.a(x))))


def test_running_variances_are_those_of_the_mean_where_inputs_are_white():
    model = Normed().double().eval()
    state = state_of(model, 1)
    state["a.weight"] = F.normalize(state["a.weight"], dim=1)
    state["a.weight"][3] = F.normalize(state["a.weight"][1] + 0.3 * state["a.weight"][0], dim=0)
    state["norm.running_var"] = torch.ones(4).double()
    for name in ("norm.weight", "norm.bias", "norm.running_mean", "a.bias"):
        state[name][3] = state[name][1]
    arch = metanet.trace(model, torch.randn(5, 6).double())
    common = {"arch": arch, "threshold": 1.0, "share": 0.25}
    merged = metanet.merge([state], "ifm", **common)
    assert torch.allclose(merged["norm.running_var"], merged["a.weight"].square().sum(1), rtol=1e-4)
    assert torch.equal(
        metanet.merge([state], "ifm", correct=False, **common)["norm.running_var"], torch.ones(3).double()
    )
    assert merged["norm.running_var"][1] < 0.99


def test_merged_in_the_same_shape_and_repaired_it_shrinks_as_it_is():
    arch, model, inputs = example("residual")
    state, x = state_of(model, 2), inputs(6)
    data = batches(inputs, 64)
    wide = metanet.merge(
        [state], "ifm", arch=arch, threshold=1.0, share=0.4, shrink=False, model=model, data=data, repair="bn_reset"
    )  # fmt: skip
    narrow = metanet.merge([dict(wide)], "ifm", arch=arch, threshold=1e-6)
    assert narrow["stem.weight"].shape[0] == 4
    got = run(WIDTHS["residual"](narrow).double(), narrow, x)
    assert torch.allclose(got, run(model, wide, x), rtol=1e-9, atol=1e-9)


def test_a_tensor_that_gets_narrower_is_not_taken_as_it_is():
    model = Mlp()
    arch, state = metanet.trace(model, torch.randn(4, 5)), model.state_dict()
    state = {n: torch.cat([t[:1], t[:1], t[2:]]) if n.startswith("a.") else t for n, t in state.items()}
    assert metanet.merge([state], "ifm", arch=arch, threshold=0.01).shapes["b.weight"] == (7, 7)
    assert metanet.merge([state], "ifm", arch=arch, threshold=0.01, overrides={"head.*": {"take": 0}})
    with pytest.raises(MetanetError, match=r"b.weight can't be taken as it is \(\(7, 8\)\), method 'ifm'"):
        metanet.merge([state], "ifm", arch=arch, threshold=0.01, overrides={"b.*": {"take": 0}})


def test_bad_calls_are_refused():
    arch, model, _ = example("mlp")
    state = model.state_dict()
    with pytest.raises(MetanetError, match="1 models, got 2"):
        metanet.merge([state, state], "ifm", arch=arch)
    with pytest.raises(MetanetError, match="from 0 to 1"):
        metanet.merge([state], "ifm", arch=arch, threshold=3)
    with pytest.raises(MetanetError, match="arch"):
        metanet.merge([state], "ifm")


# ---------------------------------------------------------------- zipit


def batches(inputs, *sizes):
    return [(inputs(n), None) for n in sizes]


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
    assert all(torch.equal(merged[0][n], merged[1][n]) for n in states[0] if not n.startswith("head"))


def test_mlp_beyond_the_stop_reads_zipped_features():
    """Dense matrices by hand: M diag(W) U below, W U at the stop, W beyond."""
    arch, model, inputs = example("mlp")
    states = [state_of(model, s) for s in (1, 2)]
    data = batches(inputs, 64, 32)
    with torch.no_grad():
        shown = [F.gelu(torch.cat([x for (x, _) in data]) @ s["a.weight"].T + s["a.bias"]) for s in states]
    correlations = np.corrcoef(torch.cat(shown, 1).T.numpy())
    cluster = zip_features(correlations, 2, 0.3, 1.0)
    u = torch.nn.functional.one_hot(torch.from_numpy(cluster), 8).double()  # (model, feature, zipped)
    m = u / u.sum((0, 1))
    merged = metanet.merge(
        states, "zipit", arch=arch, model=model, data=data, beta=1.0, stop=["b.*", "head.*"], task=1
    )  # fmt: skip
    for key in ("a.weight", "a.bias"):
        want = sum(m[k].T @ s[key].view(8, -1) for k, s in enumerate(states)).view(states[0][key].shape)
        assert torch.allclose(merged[key], want, rtol=1e-12, atol=1e-12)
    assert torch.allclose(merged["b.weight"], states[1]["b.weight"] @ u[1], rtol=1e-12, atol=1e-12)
    assert all(torch.equal(merged[n], states[1][n]) for n in ("b.bias", "head.weight", "head.bias"))

    whole = metanet.merge(states, "zipit", arch=arch, model=model, data=data, beta=1.0)
    with torch.no_grad():
        second = [torch.tanh(h @ s["b.weight"].T + s["b.bias"]) for h, s in zip(shown, states, strict=True)]
    inner = zip_features(np.corrcoef(torch.cat(second, 1).T.numpy()), 2, 0.3, 1.0)
    v = torch.nn.functional.one_hot(torch.from_numpy(inner), 7).double()
    n = v / v.sum((0, 1))
    assert ((u.sum(1) == 2).any() and (v.sum(1) == 2).any()) or (u.sum(1) == 0).any()  # merged within a network too
    want = sum(n[k].T @ s["b.weight"] @ u[k] for k, s in enumerate(states))
    assert torch.allclose(whole["b.weight"], want, rtol=1e-12, atol=1e-12)
    want = sum(s["head.weight"] @ v[k] for k, s in enumerate(states)) / 2
    assert torch.allclose(whole["head.weight"], want, rtol=1e-12, atol=1e-12)


def correlations_of(k, n, seed):
    generator = np.random.default_rng(seed)
    return np.corrcoef(generator.normal(size=(k * n, 3)) @ generator.normal(size=(3, 40)))


def plain_zip(correlations, n, alpha, beta):
    """Of two networks, written down step by step: sets of features, and every correlation looked at in each step."""
    sets = [{i} for i in range(2 * n)]
    fit = {(i, j): correlations[i, j] for i in range(2 * n) for j in range(2 * n) if i != j}
    room = [int(n // 2 * beta)] * 2

    def has(s, m):
        return any(f // n == m for f in s)

    while sum(map(bool, sets)) > n:
        allowed = {
            p: c for p, c in fit.items()
            if p[0] < p[1] and all(room[m] > 0 or not (has(sets[p[0]], m) and has(sets[p[1]], m)) for m in (0, 1))
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
    assert {frozenset(np.flatnonzero(found == c)) for c in range(9)} == plain_zip(correlations, 9, alpha, beta)


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
    """They correlate with nothing; without care two networks' would be kept apart, at the cost of living ones."""
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
        ({"heads": "keep"}, "'stack'"), ({"heads": [0, 1]}, "2 numbers, but head"), ({"heads": [0, 1, 2]}, "0 to 1"),
        ({"heads": "stack", "stop": "head.*"}, "beyond the stop"), ({"task": 2}, "0 to 1"), ({"task": 1.5}, "0 to 1"),
    ):  # fmt: skip
        with pytest.raises(MetanetError, match=says):
            zipped(states, model, inputs, arch, **wrong)
    with pytest.raises(MetanetError, match="needs"):
        metanet.merge(states, "zipit", arch=arch, model=model)
    with pytest.raises(CheckpointError):
        metanet.merge([states[0], Mlp(9).state_dict()], "zipit", arch=arch, model=model, data=batches(inputs, 4))
