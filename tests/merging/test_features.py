"""Which neurons may become one, and merging them inside one network (ifm)."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from merging.features import (
    EXAMPLES,
    FREE,
    Mlp,
    Residual,
    Transformer,
    batches,
    example,
    planted,
    run,
    state_of,
)
from metanet import MetanetError
from metanet.merging.features._fold import clusters
from metanet.merging.features._free import free_groups
from metanet.merging.features._pairs import Pairs

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
        lambda x: x * x.amax(1, keepdim=True), lambda x: x / x.norm(dim=1, keepdim=True),
        lambda x: x.cumsum(1),
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
            (i, j): ((means[i] - means[j]) ** 2).sum()
            for i in range(len(groups))
            for j in range(i + 1, len(groups))
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
    "residual": lambda s: Residual(
        len(s["norm.bias"]), *(len(s[f"into.{i}.bias"]) for i in (0, 1))
    ),
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
    for name, factor in (
        ("into.0.bias", 2),
        ("norms.0.running_mean", 2),
        ("norms.0.running_var", 4),
    ):
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
        metanet.merge([state], "ifm", correct=False, **common)["norm.running_var"],
        torch.ones(3).double(),
    )
    assert merged["norm.running_var"][1] < 0.99


def test_merged_in_the_same_shape_and_repaired_it_shrinks_as_it_is():
    arch, model, inputs = example("residual")
    state, x = state_of(model, 2), inputs(6)
    data = batches(inputs, 64)
    wide = metanet.merge(
        [state], "ifm", arch=arch, threshold=1.0, share=0.4, shrink=False, model=model, data=data,
        repair="bn_reset"
    )  # fmt: skip
    narrow = metanet.merge([dict(wide)], "ifm", arch=arch, threshold=1e-6)
    assert narrow["stem.weight"].shape[0] == 4
    got = run(WIDTHS["residual"](narrow).double(), narrow, x)
    assert torch.allclose(got, run(model, wide, x), rtol=1e-9, atol=1e-9)


def test_a_tensor_that_gets_narrower_is_not_taken_as_it_is():
    model = Mlp()
    arch, state = metanet.trace(model, torch.randn(4, 5)), model.state_dict()
    state = {
        n: torch.cat([t[:1], t[:1], t[2:]]) if n.startswith("a.") else t for n, t in state.items()
    }
    assert metanet.merge([state], "ifm", arch=arch, threshold=0.01).shapes["b.weight"] == (7, 7)
    assert metanet.merge(
        [state], "ifm", arch=arch, threshold=0.01, overrides={"head.*": {"take": 0}}
    )
    with pytest.raises(
        MetanetError, match=r"b.weight can't be taken as it is \(\(7, 8\)\), method 'ifm'"
    ):
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
