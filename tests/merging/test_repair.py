"""Repair of merged networks: exact on small networks in float64, whatever they are made of."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from merging.repairing import (
    PLAIN,
    RUN,
    Own,
    average,
    cnn,
    drawn,
    images_of,
    loaded,
    mlp,
    normed,
    split,
)
from metanet import MetanetError
from metanet.evaluation import as_checkpoint
from metanet.merging import Problem
from metanet.merging.repairs import REPAIRS, between, calibrate, measure_layers, repaired


@pytest.fixture
def images():
    return images_of()


@pytest.mark.parametrize("how", ["repair", "rescale"])
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
class TestEveryChannelIsBroughtToItsGoal:
    def check(self, how, net, goals, data, tolerance):
        got = measure_layers(net, data, RUN)
        assert set(got.layers) == set(goals) and len(goals) >= 2
        for name, goal in goals.items():
            assert torch.allclose(got.layers[name].std, goal.std, rtol=tolerance, atol=0), name
            if how == "repair" and goal.layer.bias is not None:
                assert torch.allclose(
                    got.layers[name].mean, goal.mean, rtol=0, atol=tolerance * float(goal.std.max())
                )

    def test_in_one_batch(self, how, make, images):
        nets = [drawn(make, seed) for seed in (0, 1, 2)]
        data, weights = [(images,)], [0.2, 0.3, 0.5]
        merged = metanet.merge(nets, weights=weights, repair=how, model=make().double(), data=data)
        goals = between([measure_layers(net, data, RUN) for net in nets], weights)
        self.check(how, loaded(nets[0], merged), goals, data, 1e-8)
        assert merged.report["repair/passes"] == 1

    def test_in_several_batches_of_different_sizes(self, how, make, images):
        nets = [drawn(make, seed) for seed in (0, 1)]
        data = split(images, 5, 20)
        goals = between([measure_layers(net, data, RUN) for net in nets], [0.5, 0.5])
        between_them = loaded(nets[0], average(*nets))
        found = calibrate(between_them, data, RUN, goals, REPAIRS[how], passes=None, tolerance=0)
        assert found.passes <= len(goals)
        found.fuse(between_them)
        self.check(how, between_them, goals, data, 1e-8)
        merged = metanet.merge(
            nets, repair=how, repair_passes=None, model=nets[0], data=data
        )  # until little changes
        assert merged.report["repair/passes"] > 1
        self.check(how, loaded(nets[0], merged), goals, data, 2e-2)

    def test_fused_is_what_scaled_outputs_give(self, how, make, images):
        nets = [drawn(make, seed) for seed in (0, 1)]
        goals = between([measure_layers(net, [(images,)], RUN) for net in nets], [0.5, 0.5])
        fused = loaded(nets[0], average(*nets))
        before = {n: t.clone() for n, t in fused.state_dict().items()}
        found = calibrate(fused, [(images,)], RUN, goals, REPAIRS[how])
        assert all(
            torch.equal(t, before[n]) for n, t in fused.state_dict().items()
        )  # only measured so far
        wrapped = copy.deepcopy(fused)
        found.fuse(fused)
        for name, (layer, scale) in found.weights.items():
            if make is Own:
                continue
            module = wrapped.get_submodule(name.rpartition(".")[0])
            shift = found.biases[layer.bias][1] if layer.bias else torch.zeros_like(scale)
            shape = (-1, *[1] * layer.places)
            module.register_forward_hook(
                lambda _, x, y, scale=scale, shift=shift, shape=shape: (
                    y * scale.view(shape) + shift.view(shape)
                )
            )
        if make is Own:
            (_, first), (_, second) = found.weights["into"], found.weights["out"]
            hidden = (
                torch.addmm(wrapped.bias, images.flatten(1), wrapped.into) * first
                + found.biases["bias"][1]
            )
            expected = torch.tanh(hidden) @ wrapped.out * second
        else:
            expected = wrapped(images)
        assert torch.allclose(fused(images), expected, rtol=1e-10, atol=1e-10)
        assert not torch.allclose(fused(images), loaded(fused, before)(images), rtol=1e-2)

    def test_a_network_merged_with_itself_stays(self, how, make, images):
        net = drawn(make, 0)
        merged = metanet.merge([net, net], repair=how, model=net, data=split(images, 9))
        for name, tensor in net.state_dict().items():
            assert torch.equal(merged[name], tensor), name

    def test_one_pass_over_mixed_batches_comes_near(self, how, make, images):
        nets, data = [drawn(make, seed) for seed in (0, 1)], split(images, 12, 12, 12)
        goals = between([measure_layers(net, data, RUN) for net in nets], [0.5, 0.5])
        merged = metanet.merge(nets, repair=how, model=nets[0], data=data)
        assert merged.report["repair/passes"] == 1
        self.check(how, loaded(nets[0], merged), goals, data, 0.15)

    def test_the_batches_do_not_matter(self, how, make, images):
        nets = [drawn(make, seed) for seed in (0, 1)]
        goals = between([measure_layers(net, [(images,)], RUN) for net in nets], [0.5, 0.5])
        found = []
        for data in ([(images,)], split(images, 1, 30), [(x[None],) for x in images.flip(0)]):
            net = loaded(nets[0], average(*nets))
            calibrate(net, data, RUN, goals, REPAIRS[how], passes=None, tolerance=0).fuse(net)
            found.append(net(images))
        for other in found[1:]:
            assert torch.allclose(other, found[0], rtol=1e-8, atol=1e-8)


def test_goals_are_the_weighted_means_of_means_and_of_standard_deviations(images):
    """By hand: neither what measures them nor what averages them is asked."""
    nets, weights = [drawn(mlp, seed) for seed in (0, 1)], [0.2, 0.8]
    merged = metanet.merge(nets, weights=weights, repair="repair", model=nets[0], data=[(images,)])
    with torch.no_grad():
        shown, got = [net[:2](images) for net in nets], loaded(nets[0], merged)[:2](images)
    mean, std = (
        sum(w * f(x) for w, x in zip(weights, shown, strict=True))
        for f in (lambda x: x.mean(0), lambda x: x.std(0, correction=0))
    )
    assert torch.allclose(got.mean(0), mean, rtol=1e-8, atol=1e-8)
    assert torch.allclose(got.std(0, correction=0), std, rtol=1e-8)


class Odd(nn.Module):
    """All that no correction can go into, and one layer that it can."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.twice, self.fine, self.head = (
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 11, bias=False),
        )
        self.head.weight = self.embed.weight
        self.made = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.standard = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6)
        self.lstm = nn.LSTM(6, 6, batch_first=True)

    def forward(self, input_ids, attention_mask=None):
        x = self.twice(torch.tanh(self.twice(self.embed(input_ids))))
        x = x + self.made(x) + self.attention(x, x, x)[0] + self.lstm(x)[0]
        x = x + F.linear(
            x, self.standard.weight - self.standard.weight.mean(1, keepdim=True), self.standard.bias
        )
        return self.head(torch.tanh(self.fine(x)))


def test_what_no_correction_can_go_into_stays_and_is_told_of():
    nets = [drawn(Odd, seed) for seed in (0, 1)]
    data = [(torch.randint(11, (9, 4)),), (torch.randint(11, (5, 4)),)]
    merged = metanet.merge(nets, repair="repair", model=nets[0], data=data)
    plain = metanet.merge(nets, model=nets[0])
    changed = {n for n in merged if not torch.equal(merged[n], plain[n])}
    assert changed == {"fine.weight", "fine.bias"}
    told = {
        k.removeprefix("repair/left: "): v
        for k, v in merged.report.items()
        if k.startswith("repair/left: ")
    }
    assert (
        told["used by embedding"] == "embed.weight"
        and told["used more than once"] == "twice.weight"
    )
    assert "attention.in_proj_weight" in told["used by multi_head_attention_forward"]
    assert (
        told["used by mean"] == "standard.weight"
        and "unused.weight" in told["never used by a function that is known"]
    )
    assert torch.equal(merged["head.weight"], merged["embed.weight"])


def test_one_bias_of_two_layers():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.bias = self.a.bias

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    found = measure_layers(drawn(Shared, 0), [(torch.randn(9, 6).double(),)], RUN)
    assert found.layers == {} and set(found.left) == {"a.weight", "b.weight"}


class Words(nn.Module):
    """Layers on (batch, tokens, channels), on (batch x tokens, channels) and on (batch, channels,
    tokens)."""

    def __init__(self):
        super().__init__()
        self.embed, self.lin, self.conv, self.head = (
            nn.Embedding(9, 6),
            nn.Linear(6, 5),
            nn.Conv1d(5, 7, 1),
            Own(),
        )
        self.head.into = nn.Parameter(torch.randn(7, 9))

    def forward(self, input_ids, attention_mask=None):
        x = torch.tanh(self.conv(torch.tanh(self.lin(self.embed(input_ids))).mT)).mT
        return self.head(x.reshape(-1, 7)).unflatten(0, input_ids.shape)


def test_padding_does_not_count():
    nets = [drawn(Words, seed) for seed in (0, 1)]
    ids = torch.randint(9, (8, 6), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(6) < torch.tensor([[6], [4], [2], [6], [5], [1], [3], [6]])).long()
    padded = [
        {"input_ids": ids[:3], "attention_mask": mask[:3]},
        {"input_ids": ids[3:], "attention_mask": mask[3:]},
    ]
    cut = [{"input_ids": row[m.bool()][None]} for row, m in zip(ids, mask, strict=True)]
    for how in ("repair", "rescale"):
        found = []
        for data in (padded, cut, [{"input_ids": ids}]):
            goals = between([measure_layers(net, data, RUN) for net in nets], [0.5, 0.5])
            assert len(goals) == 4
            net = loaded(nets[0], average(*nets))
            calibrate(net, data, RUN, goals, REPAIRS[how], passes=None, tolerance=0).fuse(net)
            found.append(net(ids))
        assert torch.allclose(found[0], found[1], rtol=1e-8, atol=1e-8)
        assert not torch.allclose(found[0], found[2], rtol=1e-3)


def test_an_alignment_is_undone_first(images):
    net = drawn(cnn, 0)
    arch = metanet.trace(net, images[:2])
    moved = arch.spec.sample(torch.Generator().manual_seed(1))(net.state_dict())
    merged = metanet.merge(
        [net, moved], align="weight", arch=arch, repair="repair", model=net, data=[(images,)]
    )
    for name, tensor in net.state_dict().items():
        assert torch.allclose(merged[name], tensor, rtol=1e-10, atol=1e-12)


def test_channels_without_life_are_left(images):
    nets = [drawn(mlp, seed) for seed in (0, 1)]
    for net, sign in zip(nets, (1, -1), strict=True):  # opposite: half-way there is nothing
        net[1].weight.data[3] = sign * torch.arange(64).double()
        net[1].bias.data[3] = 0.5
    merged = metanet.merge(nets, repair="repair", model=nets[0], data=[(images,)])
    assert (
        torch.equal(merged["1.weight"][3], torch.zeros(64, dtype=torch.float64))
        and float(merged["1.bias"][3]) == 0.5
    )
    assert all(bool(torch.isfinite(t).all()) for t in merged.values())


def test_rescaling_multiplies_and_adds_nothing(images):
    nets = [drawn(mlp, seed) for seed in (0, 1)]
    plain, merged = (
        average(*nets),
        metanet.merge(nets, repair="rescale", model=nets[0], data=[(images,)]),
    )
    for n in (1, 3, 5):
        scale = merged[f"{n}.bias"] / plain[f"{n}.bias"]
        assert torch.allclose(merged[f"{n}.weight"], plain[f"{n}.weight"] * scale[:, None])


def test_models_that_do_not_count_and_equal_ones_without_weights(images):
    nets, data = [drawn(mlp, seed) for seed in (0, 1)], [(images,)]
    only = metanet.merge(nets, weights=[1.0, 0.0], repair="repair", model=nets[0], data=data)
    assert all(
        torch.allclose(only[n], t, rtol=1e-10, atol=1e-12) for n, t in nets[0].state_dict().items()
    )
    with pytest.raises(MetanetError, match=r"weights 1.5, -0.5 are no goal.*bn_reset"):
        metanet.merge(nets, weights=[1.5, -0.5], repair="repair", model=nets[0], data=data)


@pytest.mark.parametrize("how", REPAIRS)
def test_dtypes_stay_and_the_module_is_not_touched(how, images, tmp_path):
    model, data = drawn(normed, 5, torch.float32).train(), split(images.float(), 20)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    states = [drawn(normed, seed).state_dict() for seed in (0, 1)]
    nets = [
        {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}
        for state in states
    ]
    merged = metanet.merge(nets, repair=how, repair_passes=None, model=model, data=data)
    assert {t.dtype for t in merged.values()} == {torch.bfloat16, torch.int64}
    assert {n: t.dtype for n, t in merged.items()} == dict(merged.dtypes)
    assert model.training and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    metanet.save_checkpoint(tmp_path / "out.safetensors", merged)
    again = metanet.load_checkpoint(tmp_path / "out.safetensors")
    assert all(torch.equal(again[n], t) for n, t in merged.items())
    whole = drawn(normed, 5)
    doubles = [
        whole.state_dict() | {n: t.double() for n, t in net.items() if t.is_floating_point()}
        for net in nets
    ]
    exact = metanet.merge(
        doubles, repair=how, repair_passes=None, model=whole, data=split(images, 20)
    )
    for name in exact:
        close = torch.isclose(merged[name].double(), exact[name].double(), rtol=0.05, atol=0.05)
        assert bool(close.all()), name


def test_the_result_goes_to_other_processes(images):
    nets = [as_checkpoint(drawn(mlp, seed).state_dict(), "net") for seed in (0, 1)]
    problem = Problem(tuple(nets), model=drawn(mlp, 0), data=[(images,)])
    merged = as_checkpoint(average(*(drawn(mlp, seed) for seed in (0, 1))), "merged")
    out = repaired("repair", merged, problem, [0.5, 0.5])
    assert torch.equal(pickle.loads(pickle.dumps(out))["1.weight"], out["1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repair": "repai"}, "no repair='repai'. Choices: bn_reset, repair, rescale, or none"),
        ({"model": None}, "repair='repair' runs the merged network: give model=..."),
        ({"data": None}, "give data=..."),
        ({"model": None, "data": None}, "give model=... and data=..."),
        (
            {"repair": "bn_reset"},
            "Sequential has no running statistics .BatchNorm.; other repairs: repair, rescale",
        ),
        ({"repair_passes": 0}, "repair_passes=0: give 1 or more"),
        ({"data": iter([1])}, "an iterator, which can be read only once"),
        ({"data": []}, "the data yielded no batch"),
        ({"data": [(torch.randn(3, 2, 5, 5),)]}, r"Sequential can't run the data \(\(3, 2, 5, 5\)"),
        ({"data": [torch.randn(3, 2)]}, "must yield .inputs, target. or dicts"),
        (
            {"data": [(torch.full((3, 1, 8, 8), torch.nan).double(),)]},
            "outputs of 1.weight are NaN or infinite",
        ),
    ],
)
def test_says_what_is_wrong(change, message, images):
    nets = [drawn(mlp, seed) for seed in (0, 1)]
    with pytest.raises(MetanetError, match=message):
        metanet.merge(nets, **{"repair": "repair", "model": nets[0], "data": [(images,)], **change})


def test_a_network_without_anything_to_repair_or_values():
    nets = [{"weight": torch.randn(5, 3)} for _ in range(2)]
    with pytest.raises(MetanetError, match="Embedding has no layer that can be corrected"):
        metanet.merge(nets, repair="repair", model=nn.Embedding(5, 3), data=[(torch.arange(5),)])
    with torch.device("meta"):
        empty = nn.Linear(3, 5, bias=False)
    with pytest.raises(MetanetError, match="on the meta device"):
        metanet.merge(nets, repair="repair", model=empty, data=[(torch.randn(5, 3),)])
    one = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(
        MetanetError, match="0 saw one value of every channel, which has no variance"
    ):
        metanet.merge([one, one], repair="bn_reset", model=one, data=[(torch.randn(1, 3),)])


def test_the_tensors_of_a_network_stay_plain(images):
    """Which layer made a value is remembered elsewhere than on it."""
    net = drawn(mlp, 0)
    outputs = []
    for module in net.modules():
        module.register_forward_hook(lambda _, args, out: outputs.append(out))
    measured = measure_layers(net, [(images,)], RUN)
    assert len(measured.layers) > 1
    assert outputs and not any(vars(out) for out in outputs)
