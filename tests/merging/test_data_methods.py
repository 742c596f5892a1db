"""Merge methods that look at data: soups, backward compatibility, and what all of them have in
common."""

import copy

import pytest
import torch
from torch import nn

import metanet
from merging.data_methods import CPU, METHODS, classes, fisher_of, lm, mlp, sentences
from metanet import MetanetError
from metanet.evaluation import Flips, Runner, flips, right_answers


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["mlp", "gpt2"])
def test_equal_models_stay_as_they_are(method, family):
    net, data = (mlp(), classes()) if family == "mlp" else (lm("gpt2"), [sentences()])
    base = {"base": net} if method == "bcwi" else {}
    merged = metanet.merge([net, copy.deepcopy(net)], method, model=net, data=data, **base)
    for name, tensor in net.state_dict().items():
        assert torch.equal(merged[name], tensor), name
    loaded = copy.deepcopy(net)
    loaded.load_state_dict(merged)


def lines(*slopes):
    """Networks of one weight, and data on which the loss is the square of its distance to 1."""
    return (
        [{"weight": torch.tensor([[s]])} for s in slopes],
        nn.Linear(1, 1, bias=False),
        [(torch.ones(4, 1),) * 2],
    )


def test_greedy_soup_by_hand():
    models, net, data = lines(3.0, 0.5, 1.4, 0.9)  # losses 4, 0.25, 0.16, 0.01
    merged = metanet.merge(models, "greedy_soup", model=net, data=data)
    # 0.9 is best; with 1.4 it is 1.15: worse; with 0.5 it is 0.7: worse; with 3 it is 1.95: worse
    assert merged["weight"].item() == pytest.approx(0.9)
    assert merged.report["models in the soup"] == "3"
    models, *_ = lines(3.0, 0.6, 1.4, 0.8)
    merged = metanet.merge(models, "greedy_soup", model=net, data=data)
    # 0.8, then 1.4 (of equals the one that comes first is 0.6): 0.7 worse, 1.1 better, and no more
    assert merged.report["models in the soup"] == "3, 2" and merged[
        "weight"
    ].item() == pytest.approx(1.1)
    assert merged.report["model 0 loss"] == pytest.approx(4.0) and merged.report[
        "soup loss"
    ] == pytest.approx(0.01)


def test_greedy_soup_by_accuracy_keeps_what_is_as_good():
    models = [mlp(seed=s) for s in (1, 1, 2)]
    data = classes(40)
    merged = metanet.merge(models, "greedy_soup", model=models[0], data=data)
    assert "soup accuracy" in merged.report
    assert (
        merged.report["model 0 accuracy"] >= merged.report["model 2 accuracy"]
    )  # so that 0 is the first
    assert {"0", "1"} <= set(merged.report["models in the soup"].split(", "))


def test_flips_by_hand():
    old = torch.tensor([True, True, True, False, False])
    new = torch.tensor([True, False, False, True, False])
    assert flips(old, new) == Flips(5, negative=2, positive=1)
    assert flips(old, new).negative_rate == 0.4 and flips(old, new).positive_rate == 0.2
    with pytest.raises(MetanetError, match="same samples"):
        flips(old, new[:3])
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = torch.eye(2)
    data = [(torch.eye(2), torch.tensor([0, 0])), (torch.eye(2)[:1], torch.tensor([0]))]
    assert right_answers(net, data, Runner(CPU)).tolist() == [True, False, True]


@pytest.mark.parametrize("importance", [False, True])
def test_bcwi_ends_are_the_new_and_the_old_model(importance):
    old, new, data = mlp(seed=1), mlp(seed=2), classes()
    for alpha, end in ((0.0, new), (1.0, old)):
        merged = metanet.merge(
            [new], "bcwi", base=old, model=old, data=data, alpha=alpha, importance=importance
        )
        assert all(torch.equal(merged[n], t) for n, t in end.state_dict().items())


def test_bcwi_between_the_ends():
    old, new, more, data = mlp(seed=1), mlp(seed=2), mlp(seed=3), classes()
    importance = fisher_of(old, data)
    mean = torch.cat([f.flatten() for f in importance.values()]).mean()
    merged = metanet.merge(
        [new, more], "bcwi", base=old, model=old, data=data, alpha=0.3, importance=True
    )
    plain = metanet.merge([new, more], "bcwi", base=old, alpha=0.3)
    for n, start in old.named_parameters():
        soup = (new.state_dict()[n] + more.state_dict()[n]) / 2
        f = importance[n] / mean
        torch.testing.assert_close(
            merged[n], ((0.3 * f * start + 0.7 * soup) / (0.3 * f + 0.7)).detach()
        )
        torch.testing.assert_close(plain[n], (0.3 * start + 0.7 * soup).detach())
    assert plain.report == {"alpha": 0.3}


def test_bcwi_chooses_the_fewest_negative_flips_at_equal_accuracy():
    old, new, data = mlp(seed=1), mlp(seed=2), classes(60)
    merged = metanet.merge([new], "bcwi", base=old, model=old, data=data, steps=10)
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    kept, right = {}, old(x).argmax(-1) == y
    for k in range(11):
        net = copy.deepcopy(old)
        net.load_state_dict(
            {n: torch.lerp(new.state_dict()[n], t, k / 10) for n, t in old.state_dict().items()}
        )
        answers = net(x).argmax(-1) == y
        if k == 0:
            least, before = int(answers.sum()), int((right & ~answers).sum())
        if int(answers.sum()) >= least:
            kept[k / 10] = int((right & ~answers).sum())
    fewest = min(kept.values())
    assert merged.report["alpha"] == max(a for a, n in kept.items() if n == fewest)
    assert merged.report["merged negative flips"] == fewest
    assert merged.report["new negative flips"] == before
    assert merged.report["merged accuracy"] >= merged.report["new accuracy"]


def test_bcwi_of_numbers_keeps_the_most_of_the_old_model():
    (old, new), net, data = lines(0.5, 1.1)  # losses 0.25 and 0.01: down to 0.9 all are as good
    merged = metanet.merge([new], "bcwi", base=old, model=net, data=data, steps=6)
    assert merged.report["alpha"] == pytest.approx(2 / 6) and merged[
        "weight"
    ].item() == pytest.approx(0.9)
    assert "new negative flips" not in merged.report


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_networks_are_run_in_float32(method):
    net, data = mlp((4, 6, 3)).to(torch.bfloat16), [(x.float(), y) for x, y in classes()]
    other = mlp((4, 6, 3), seed=1).to(torch.bfloat16)
    base = {"base": other} if method == "bcwi" else {}
    merged = metanet.merge([net, other], method, model=net, data=data, **base)
    assert all(
        merged[n].dtype == torch.bfloat16 and merged[n].isfinite().all() for n in net.state_dict()
    )
    assert net[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("fisher", {"labels": "wrong"}, "labels='wrong': give one of auto"),
        ("fisher", {"samples": 0}, "samples=0"),
        ("fisher", {"data": [(torch.zeros(2, 4).double(),)]}, "no targets"),
        ("fisher", {"data": [(torch.zeros(2, 4).double(), "words")]}, "no distribution is known"),
        ("fisher", {"data": iter(classes())}, "iterator"),
        ("fisher", {"data": classes(width=5)}, "can't run the data"),
        ("fisher", {"data": classes(of=9)}, "the network has scores for 3"),
        ("fisher", {"weights": [1.0, -1.0]}, "sum 0"),
        ("fisher", {"data": None}, "needs data="),
        ("regmean", {"alpha": 1.5}, "give 0 to 1"),
        ("greedy_soup", {"measure": "speed"}, "no measure 'speed'. Choices: loss, accuracy"),
        ("bcwi", {"base": mlp(), "alpha": 2.0}, "alpha=2.0"),
        ("bcwi", {"base": mlp(), "data": None}, "choosing alpha needs"),
        ("bcwi", {"base": mlp(), "steps": 0}, "steps=0"),
    ],
)
def test_bad_input_says_what_to_do(method, options, message):
    given = {"model": mlp(), "data": classes(), **options}
    with pytest.raises(MetanetError, match=message):
        metanet.merge([mlp(seed=1), mlp(seed=2)], method, **given)["0.weight"]


def test_integer_outputs_have_no_gradient():
    class Hard(nn.Linear):
        def forward(self, x):
            return super().forward(x).argmax(-1, keepdim=True)

    net = Hard(4, 3).double()
    with pytest.raises(MetanetError, match="torch.int64, of which there is no gradient"):
        metanet.merge([net, net], "fisher", model=net, data=classes())


def test_outputs_that_depend_on_nothing():
    class Constant(nn.Linear):
        def forward(self, x):
            return torch.zeros(len(x), 3, dtype=x.dtype)

    net = Constant(4, 3).double()
    with pytest.raises(MetanetError, match="do not depend on its parameters"):
        metanet.merge([net, net], "fisher", model=net, data=classes())
    with pytest.raises(MetanetError, match="no linear map"):
        metanet.merge([net, net], "regmean", model=net, data=classes())
