"""Barriers: by hand where a few numbers suffice, on relabelled and trained networks where they do
not."""

import csv
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import metanet
from metanet import Alignment, MetanetError
from metanet.errors import CheckpointError
from metanet.evaluation import LOSSES, METRICS, find_loss
from metanet.landscape import Barrier


def weight(value, dtype=torch.float32):
    return {"weight": torch.tensor([[value]], dtype=dtype)}


def line():
    """A network whose squared error on one sample (1, 1) is (w - 1)^2."""
    return nn.Linear(1, 1, bias=False), [(torch.ones(1, 1), torch.ones(1, 1))]


def net(seed=0):
    """A network with BatchNorm and nothing at its initial value."""
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 12), nn.Tanh(), nn.Linear(12, 4),
    )  # fmt: skip
    for tensor in (*made.parameters(), made[1].running_mean):
        tensor.data.normal_(0, 0.6)
    made[1].running_var.uniform_(0.3, 2)
    made[1].num_batches_tracked.fill_(seed)
    return made


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(60, 1, 8, 8, generator=generator)
    with torch.no_grad():
        y = net(7).eval()(x).argmax(-1)
    return DataLoader(TensorDataset(x, y), 16)


class TestByHand:
    def test_a_quadratic(self):
        model, data = line()
        curve = metanet.barrier(weight(0.0), weight(3.0), model=model, data=data, points=4)
        assert curve.lambdas == pytest.approx((0, 1 / 3, 2 / 3, 1))
        assert curve.loss == pytest.approx((1, 0, 1, 4), abs=1e-6)  # w = 0, 1, 2, 3
        assert curve.barrier == 0  # convex: never above the line
        assert curve.accuracy is None and curve.accuracy_barrier is None
        assert (curve.samples, list(curve.curves)) == (1, ["loss"])

    def test_a_barrier_and_its_line_between_unequal_ends(self):
        model, data = line()
        curve = metanet.barrier(
            weight(0.0),
            weight(3.0),
            model=model,
            data=data,
            points=4,
            loss=lambda y, t: -((y - t) ** 2).mean(),
        )
        # losses -1, 0, -1, -4 against the line -1, -2, -3, -4
        assert curve.barrier == pytest.approx(2, abs=1e-6)

    def test_accuracy_counts_downwards(self):
        curve = Barrier((0.0, 0.5, 1.0), {"loss": (1.0, 1.0, 1.0), "accuracy": (0.9, 0.2, 0.7)}, 10)
        assert curve.accuracy_barrier == pytest.approx(0.6)
        assert curve.barrier == 0
        assert curve.numbers()["accuracy/middle"] == 0.2

    def test_nan_on_the_path_is_no_small_barrier(self):
        curve = Barrier((0.0, 0.5, 1.0), {"loss": (1.0, math.nan, 1.0)}, 10)
        assert math.isnan(curve.barrier)
        assert Barrier((0.0, 0.5, 1.0), {"loss": (1.0, math.inf, 1.0)}, 10).barrier == math.inf

    def test_batches_count_by_their_size(self):
        model = nn.Linear(1, 1, bias=False)
        x = torch.arange(5.0).view(5, 1)
        curves = [
            metanet.barrier(
                weight(1.0),
                weight(2.0),
                model=model,
                data=DataLoader(TensorDataset(x, x), size),
                points=3,
            )
            for size in (5, 2)
        ]
        assert curves[0].loss == pytest.approx(curves[1].loss)
        assert curves[1].loss[-1] == pytest.approx((0 + 1 + 4 + 9 + 16) / 5)

    def test_floats_are_interpolated_wide(self):
        model, _ = line()
        a, b = (
            weight(1.0, torch.bfloat16),
            weight(1.0078125, torch.bfloat16),
        )  # neighbours in bfloat16
        data = [(torch.ones(1, 1), torch.zeros(1, 1))]
        curve = metanet.barrier(a, b, model=model, data=data, points=5, loss=lambda y, t: y.mean())
        assert curve.loss == pytest.approx(
            (1, 1.001953125, 1.00390625, 1.005859375, 1.0078125), abs=1e-7
        )


class TestRelabelled:
    def test_to_itself_there_is_none(self, images):
        model = net()
        curve = metanet.barrier(model, model.state_dict(), model=model, data=images, points=5)
        assert curve.barrier == curve.accuracy_barrier == curve.of("calibrated_loss") == 0
        assert len(set(curve.loss)) == len(set(curve.accuracy)) == 1

    @pytest.mark.parametrize("how", ["name", "alignment"])
    def test_to_its_relabelling_there_is_one_until_aligned(self, how, images):
        model = net(7)
        arch = metanet.trace(model, torch.randn(2, 1, 8, 8))
        a = model.state_dict()
        b = arch.spec.sample(torch.Generator().manual_seed(1))(a)
        given = "weight" if how == "name" else metanet.align(b, to=a, arch=arch, restarts=2)
        options = {"restarts": 2} if how == "name" else {}
        curve = metanet.barrier(
            a, b, model=model, data=images, points=9, align=given, arch=arch, **options
        )
        assert curve.barrier < 1e-6 and curve.accuracy_barrier == 0
        assert curve.unaligned.barrier > 0.05 and curve.unaligned.accuracy_barrier > 0.03
        assert curve.accuracy == (1.0,) * 9
        assert curve.alignment.options["restarts"] == 2
        assert curve.unaligned.alignment is None
        assert curve.summary()["unaligned/loss/barrier"] == curve.unaligned.barrier
        assert curve.summary()["matcher"] == "weight"

    def test_a_matcher_needs_no_architecture_if_the_data_tell_it(self, images):
        model = net(7)
        arch = metanet.trace(model, torch.randn(2, 1, 8, 8))
        b = arch.spec.sample(torch.Generator().manual_seed(1))(model.state_dict())
        curve = metanet.barrier(model, b, model=model, data=images, points=3, align="activation")
        assert curve.barrier < 1e-6 < curve.unaligned.barrier

    def test_the_matcher_may_have_other_data(self, images):
        model = net(7)
        arch = metanet.trace(model, torch.randn(2, 1, 8, 8))
        b = arch.spec.sample(torch.Generator().manual_seed(1))(model.state_dict())

        class Counted(list):
            reads = 0

            def __iter__(self):
                self.reads += 1
                return super().__iter__()

        data, train = Counted(images), Counted([*images][:3])
        curve = metanet.barrier(
            model,
            b,
            model=model,
            data=data,
            train_data=train,
            points=3,
            align="activation",
            arch=arch,
        )
        assert curve.barrier < 1e-6 < curve.unaligned.barrier
        assert (data.reads, train.reads) == (
            1 + 2 * 3,
            2,
        )  # once each to see that they are not empty

    def test_the_module_is_not_touched(self, images):
        model = net().train()
        before = {n: t.clone() for n, t in model.state_dict().items()}
        metanet.barrier(net(1), net(2), model=model, data=images, points=3, statistics="reset")
        assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
        assert model.training and all(p.requires_grad for p in model.parameters())


class TestStates:
    def test_integers_are_those_of_a(self, images):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.lin = nn.Linear(2, 2)
                self.register_buffer("count", torch.tensor(0))

            def forward(self, x):
                return self.lin(x) * 0 + self.count

        model = Counting()
        ends = [{**model.state_dict(), "count": torch.tensor(n)} for n in (3, 8)]
        data = [(torch.zeros(1, 2), torch.zeros(1, 2))]
        curve = metanet.barrier(*ends, model=model, data=data, points=3, loss=lambda y, t: y.mean())
        assert curve.loss == (3, 3, 3)
        without = [{n: t for n, t in end.items() if n != "count"} for end in ends]
        assert metanet.barrier(*without, model=model, data=data, points=3, loss="mse").loss == (
            0,
            0,
            0,
        )

    def test_tied_tensors_stay_tied(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
                self.two.weight = self.one.weight

            def forward(self, x):
                return self.two(self.one(x))

        model, data = Tied(), [(torch.ones(1, 1), torch.zeros(1, 1))]
        a = {"one.weight": torch.tensor([[1.0]]), "two.weight": torch.tensor([[1.0]])}
        b = {"two.weight": torch.tensor([[3.0]])}  # one name is enough
        curve = metanet.barrier(a, b, model=model, data=data, points=3, loss=lambda y, t: y.mean())
        assert curve.loss == (1, 4, 9)  # the square of 1, 2, 3
        with pytest.raises(
            CheckpointError, match="two.weight and one.weight differ, but are one tensor"
        ):
            metanet.barrier(a, {**a, **b}, model=model, data=data)

    def test_checkpoints_may_be_lazy_and_wrapped(self, images, tmp_path):
        model = net()
        metanet.save_checkpoint(
            tmp_path / "b.safetensors", {f"model.{n}": t for n, t in net(1).state_dict().items()}
        )
        b = metanet.load_checkpoint(tmp_path / "b.safetensors")
        curves = [
            metanet.barrier(model, x, model=model, data=images, points=3) for x in (b, net(1))
        ]
        assert curves[0].loss == curves[1].loss
        assert curves[0].barrier >= 0


class TestStatistics:
    def test_reset_measures_them_anew_between_the_ends(self, images):
        model, a, b = net(), net(1), net(2)
        kept, reset = (
            metanet.barrier(a, b, model=model, data=images, points=3, statistics=how)
            for how in ("keep", "reset")
        )
        assert kept.loss[0] == reset.loss[0] and kept.loss[-1] == reset.loss[-1]
        assert kept.loss[1] != reset.loss[1]
        assert (kept.statistics, reset.statistics) == ("keep", "reset")
        # by hand: mean and variance over all samples
        half = net()
        half.load_state_dict(
            {
                n: t if t.dtype == torch.int64 else (t + b.state_dict()[n]) / 2
                for n, t in a.state_dict().items()
            }
        )
        with torch.no_grad():
            x, y = images.dataset.tensors
            seen = half[0](x)
            half[1].running_mean.copy_(seen.mean((0, 2, 3)))
            half[1].running_var.copy_(seen.var((0, 2, 3)))
            loss = F.cross_entropy(half.eval()(x), y)
        assert reset.loss[1] == pytest.approx(float(loss), rel=1e-5)

    def test_they_may_come_from_other_data(self, images):
        other = [(10 * x, y) for x, y in images]
        curves = [
            metanet.barrier(
                net(1), net(2), model=net(), data=images, points=3, statistics="reset", train_data=d
            )
            for d in (None, list(images), other)
        ]
        assert curves[0].loss == curves[1].loss != curves[2].loss

    def test_batches_of_one_do_as_well_but_one_sample_has_no_variance(self):
        torch.manual_seed(0)
        model, b = (
            nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2))
            for _ in range(2)
        )
        x, y = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
        whole, pairs, single = (
            metanet.barrier(model, b, model=model, data=DataLoader(TensorDataset(x, y), size), points=3,
                            statistics="reset")
            for size in (5, 2, 1)
        )  # fmt: skip
        assert whole.loss == pytest.approx(pairs.loss, rel=1e-4) and whole.loss == pytest.approx(
            single.loss, rel=1e-4
        )
        with pytest.raises(
            MetanetError, match="1 saw one value of every channel, which has no variance"
        ):
            metanet.barrier(
                model, b, model=model, data=[(x[:1], y[:1])], points=3, statistics="reset"
            )

    @pytest.mark.parametrize("how", ["repair", "rescale"])
    def test_repair_of_what_lies_between(self, how, images):
        torch.manual_seed(0)
        model, a, b = (
            nn.Sequential(
                nn.Flatten(),
                nn.Linear(64, 32),
                nn.ReLU(),
                nn.Linear(32, 32),
                nn.ReLU(),
                nn.Linear(32, 4),
            )
            for _ in range(3)
        )
        kept, got = (
            metanet.barrier(
                a,
                b,
                model=model,
                data=[images.dataset.tensors],
                points=5,
                statistics=s,
                loss=spread,
            )
            for s in ("keep", how)
        )
        assert (
            got.statistics == how and got.loss[0] == kept.loss[0] and got.loss[-1] == kept.loss[-1]
        )
        line = [got.loss[0] + (got.loss[-1] - got.loss[0]) * share for share in got.lambdas]
        assert got.loss == pytest.approx(
            line, rel=1e-3
        )  # every channel's spread, of the scores too
        assert kept.loss[2] < 0.8 * line[2]


def spread(outputs, target):
    """How much the scores vary over the samples, the mean over the classes."""
    return outputs.std(0, correction=0).mean()


class Words(nn.Module):
    """A language model that computes its own loss."""

    def __init__(self, own=True):
        super().__init__()
        self.embed, self.head, self.own = nn.Embedding(5, 4), nn.Linear(4, 5), own

    def forward(self, input_ids, labels=None):
        from types import SimpleNamespace

        logits = self.head(self.embed(input_ids))
        loss = (
            F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            if self.own
            else None
        )
        return SimpleNamespace(logits=logits, loss=loss)


class TestLosses:
    def test_the_networks_own_loss(self):
        model, ids = Words(), torch.randint(5, (3, 6))
        data = [{"input_ids": ids, "labels": ids}]
        curve = metanet.barrier(Words(), Words(), model=model, data=data, points=3)
        named = metanet.barrier(model, Words(), model=model, data=data, points=3, loss="own")
        assert named.loss[0] == pytest.approx(float(model(ids, ids).loss.detach()))
        assert list(curve.curves) == [
            "loss"
        ]  # whether labels are shifted inside, only the network knows
        unshifted = metanet.barrier(
            model, Words(), model=model, data=data, points=3, loss="cross_entropy"
        )
        assert unshifted.loss[0] == pytest.approx(
            float(F.cross_entropy(model(ids, ids).logits.flatten(0, 1), ids.flatten()).detach())
        )

    def test_classes_that_are_ignored_do_not_count(self):
        model, b = nn.Linear(2, 3), nn.Linear(2, 3)
        x, y = torch.randn(4, 2), torch.tensor([0, -100, 2, -100])
        all_of, half = (
            metanet.barrier(model, b, model=model, data=d, points=3)
            for d in ([(x, y)], [(x[[0, 2]], y[[0, 2]])])
        )
        assert all_of.loss == pytest.approx(half.loss)
        assert all_of.accuracy == half.accuracy
        with pytest.raises(MetanetError, match="all targets of the data are ignored"):
            metanet.barrier(model, model, model=model, data=[(x, torch.full((4,), -100))])

    @pytest.mark.parametrize("name", ["cross_entropy", "mse", "l1", "binary_cross_entropy"])
    def test_named_ones(self, name):
        scores = torch.randn(4, 3)
        classes, numbers = torch.tensor([0, 2, 1, 1]), torch.rand(4, 3)
        by_torch = {
            "cross_entropy": (F.cross_entropy, classes),
            "mse": (F.mse_loss, numbers), "l1": (F.l1_loss, numbers),
            "binary_cross_entropy": (F.binary_cross_entropy_with_logits, numbers),
        }  # fmt: skip
        function, target = by_torch[name]
        assert torch.equal(LOSSES[name](scores, target), function(scores, target))
        with pytest.raises(
            MetanetError, match=f"loss '{name}' needs .*outputs are \\(4, 3\\), the target \\(2,\\)"
        ):
            LOSSES[name](scores, torch.rand(2))
        assert find_loss(name) is LOSSES[name]

    def test_numbers_in_one_column_or_none(self):
        assert float(LOSSES["mse"](torch.ones(3, 1), torch.zeros(3))) == 1

    def test_calibration_undoes_a_scale(self):
        scores, target = torch.randn(50, 4), torch.randint(4, (50,))
        scores[range(50), target] += 2
        measure = METRICS["calibrated_loss"]
        of = [measure.settle(measure.measure(scores * s, target)) for s in (1, 0.25, 4)]
        assert of[0] == pytest.approx(of[1], rel=1e-5) and of[0] == pytest.approx(of[2], rel=1e-5)
        assert of[0] <= float(F.cross_entropy(scores, target))
        assert of[0] < float(F.cross_entropy(scores / 4, target)) - 0.1


def test_the_csv_and_the_picture(images, tmp_path):
    model = net(7)
    arch = metanet.trace(model, torch.randn(2, 1, 8, 8))
    b = arch.spec.sample(torch.Generator().manual_seed(1))(model.state_dict())
    curve = metanet.barrier(model, b, model=model, data=images, points=5, align="weight", arch=arch)
    curve.to_csv(tmp_path / "made" / "barrier.csv")
    rows = list(csv.DictReader((tmp_path / "made" / "barrier.csv").read_text().splitlines()))
    assert len(rows) == 5
    for name, values in {
        "loss": curve.loss,
        "unaligned_accuracy": curve.unaligned.accuracy,
    }.items():
        assert tuple(float(row[name]) for row in rows) == values
    curve.plot(tmp_path / "barrier.png")
    assert (tmp_path / "barrier.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"barrier.csv", "barrier.png"}
    text = str(curve)
    assert "barrier aligned by weight: loss " in text and "barrier as they are: loss " in text
    assert len(text.splitlines()) == 1 + 5 + 2


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": []}, "the data yielded no batch"),
        ({"data": iter([1])}, "an iterator, which can be read only once"),
        (
            {"data": [(torch.randn(2, 1, 8, 8), torch.tensor([0, 9]))]},
            "classes from 0 to 9, but .* scores for 4",
        ),
        (
            {"data": [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))]},
            r"Sequential can't run the data \(\(2, 3, 8, 8\)",
        ),
        ({"data": [torch.randn(2, 1, 8, 8)]}, "must yield .inputs, target. or dicts"),
        ({"data": [(torch.randn(2, 1, 8, 8), "a")]}, "no loss is known for outputs"),
        ({"points": 2}, "points=2: .* 3 or more"),
        ({"loss": "hinge"}, "no loss 'hinge'. Choices: binary_cross_entropy, cross_entropy"),
        ({"metrics": ["f1"]}, "no metric 'f1'. Choices: accuracy, calibrated_loss"),
        ({"statistics": "repai"}, "no statistics='repai'. Choices: keep, reset, repair, rescale"),
        ({"align": "wait"}, "no matcher 'wait'"),
        pytest.param(
            {"align": 3}, "name of a matcher or an Alignment, got int", marks=pytest.mark.untyped
        ),
        ({"restarts": 3}, "unknown arguments restarts: options of a matcher need align=NAME"),
    ],
)
def test_says_what_is_wrong(change, message, images):
    given = {"model": net(), "data": images, "points": 3, **change}
    with pytest.raises(MetanetError, match=message):
        metanet.barrier(net(1), net(2), **given)


class TestWrongNetworks:
    @pytest.mark.untyped
    def test_names_and_shapes(self, images):
        model, b = net(), net(1).state_dict()
        with pytest.raises(
            CheckpointError,
            match=r"(?s)checkpoint 'a' does not fit .*missing +7.weight .*near: 7.wight",
        ):
            metanet.barrier(
                {n.replace("7.weight", "7.wight"): t for n, t in b.items()},
                b,
                model=model,
                data=images,
            )
        with pytest.raises(CheckpointError, match=r"7.bias is \(3,\), expected \(4,\)"):
            metanet.barrier(model, {**b, "7.bias": torch.ones(3)}, model=model, data=images)
        with pytest.raises(CheckpointError, match="0.weight is torch.int8, expected torch.float32"):
            metanet.barrier(
                model, {**b, "0.weight": b["0.weight"].char()}, model=model, data=images
            )

    @pytest.mark.untyped
    def test_no_network_at_all(self, images):
        model, b = net(), net(1).state_dict()
        with pytest.raises(CheckpointError, match="b must be a module or a mapping"):
            metanet.barrier(model, [b], model=model, data=images)

    def test_nan(self, images):
        model, b = net(), net(1).state_dict()
        b["5.weight"][0, :2] = math.nan
        with pytest.raises(
            CheckpointError, match="checkpoint 'b': 2 of 288 values of 5.weight are NaN or infinite"
        ):
            metanet.barrier(model, b, model=model, data=images)

    def test_an_alignment_of_another_network(self, images):
        other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        arch = metanet.trace(other, torch.randn(2, 3))
        al = Alignment(arch.spec.sample(), (0.0,), {}, 0.0, "weight")
        with pytest.raises(
            MetanetError, match="alignment is of another network: it moves 0.bias and 2 more"
        ):
            metanet.barrier(net(), net(1), model=net(), data=images, align=al)

    def test_a_network_without_statistics_or_values(self, images):
        model, data = line()
        with pytest.raises(MetanetError, match="Linear has no running statistics"):
            metanet.barrier(model, model, model=model, data=data, statistics="reset")
        with torch.device("meta"):
            empty = nn.Linear(1, 1, bias=False)
        with pytest.raises(MetanetError, match="on the meta device"):
            metanet.barrier(model, model, model=empty, data=data)

    def test_a_measure_that_the_target_does_not_allow(self):
        model, data = line()
        with pytest.raises(MetanetError, match="accuracy can't be measured"):
            metanet.barrier(model, model, model=model, data=data, metrics=["accuracy"])
        with pytest.raises(MetanetError, match="'accuracy' was not measured; measured were loss"):
            metanet.barrier(model, model, model=model, data=data).of("accuracy")


@pytest.mark.gpu
def test_on_a_graphics_card(images):
    curves = [
        metanet.barrier(net(1), net(2), model=net(), data=images, points=5, device=d)
        for d in ("cpu", "cuda")
    ]
    assert curves[0].loss == pytest.approx(curves[1].loss, rel=1e-3)
