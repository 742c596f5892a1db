"""Merge methods that look at data: against their definitions, computed the slow way."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from metanet import MetanetError
from metanet.evaluation import Flips, Runner, aligned_target, flips, right_answers
from metanet.merging import DataPerModel
from metanet.merging._fisher import fishers
from metanet.merging._grams import grams
from metanet.merging._network import working_copy
from metanet.merging._part import Problem

METHODS = ("greedy_soup", "fisher", "regmean", "bcwi")
CPU = torch.device("cpu")


def mlp(sizes=(4, 6, 3), seed=0):
    torch.manual_seed(seed)
    layers = [m for i, o in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(i, o), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double().eval()


def classes(count=12, width=4, of=3, seed=0, batch=5):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=g, dtype=torch.float64)
    y = torch.randint(of, (count,), generator=g)
    return list(zip(x.split(batch), y.split(batch), strict=True))


def fisher_of(net, data, **options):
    given = {"samples": None, "labels": "auto", **options}
    return fishers(Problem((net.state_dict(),), model=net, data=data), [(0, "model 0")], **given)[0]


def gradients(net, value):
    found = torch.autograd.grad(value, list(net.parameters()), retain_graph=True)
    return dict(zip(dict(net.named_parameters()), found, strict=True))


def lm(name, **more):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, **more)
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=8, **more,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config).eval()


def sentences(count=3, length=5):
    ids = torch.randint(11, (count, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def expected_fisher(net, data):
    """Over every class of every sample: the definition."""
    out = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    count = 0
    for x, _ in data:
        for row in x:
            logs = net(row[None]).log_softmax(-1)[0]
            count += 1
            for log in logs:
                for name, g in gradients(net, log).items():
                    out[name] += log.exp().detach() * g**2
    return {n: f / count for n, f in out.items()}


def test_fisher_information_is_the_expected_square_of_each_samples_gradient():
    net, data = mlp(), classes()
    torch.testing.assert_close(fisher_of(net, data), expected_fisher(net, data))


def test_fisher_information_by_the_datas_targets():
    net, data = mlp(), classes()
    want = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for x, y in data:
        for row, label in zip(x, y, strict=True):
            for name, g in gradients(net, F.cross_entropy(net(row[None]), label[None])).items():
                want[name] += g**2 / 12
    torch.testing.assert_close(fisher_of(net, data, labels="empirical"), want)


def test_fisher_information_of_numbers_is_the_squared_jacobian():
    net, data = mlp(), [(x, torch.zeros(len(x), 3, dtype=torch.float64)) for x, _ in classes()]
    want = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for x, _ in data:
        for row in x:
            for output in net(row[None])[0]:
                for name, g in gradients(net, output).items():
                    want[name] += g**2 / 12
    torch.testing.assert_close(fisher_of(net, data), want)


def test_fisher_information_of_truth_values():
    net, loss = mlp((4, 1)), metanet.evaluation.LOSSES["binary_cross_entropy"]
    data = [(x, (y > 0).double()[:, None]) for x, y in classes()]
    problem = Problem((net.state_dict(),), model=net, data=data, loss=loss)
    (found,) = fishers(problem, [(0, "model 0")], samples=None, labels="auto")
    x = torch.cat([x for x, _ in data])
    p = net(x).sigmoid().detach()
    torch.testing.assert_close(found["0.weight"], (p * (1 - p) * x**2).mean(0, keepdim=True))


@pytest.mark.parametrize("labels", ["expected", "sampled", "empirical"])
def test_one_sample_at_a_time_finds_what_all_at_once_finds(labels, monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).double().eval()
    data = [(torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.randint(3, (6,)))]
    with monkeypatch.context() as patch:
        patch.delattr("metanet.merging._fisher._Estimate._alone")
        fast = fisher_of(net, data, labels=labels)
    monkeypatch.setattr("metanet.merging._fisher._CHUNK", 1)
    monkeypatch.delattr("metanet.merging._fisher._Estimate._all_at_once")
    torch.testing.assert_close(fisher_of(net, data, labels=labels), fast)
    assert set(fast) == {n for n, _ in net.named_parameters()}


def test_fisher_information_of_a_class_for_every_place():
    torch.manual_seed(0)
    net = nn.Conv2d(2, 3, 1).double()
    x, y = torch.randn(2, 2, 2, 1, dtype=torch.float64), torch.randint(3, (2, 2, 1))
    y[0, 0, 0] = -100
    want = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for k, place in ((0, 1), (1, 0), (1, 1)):
        logs = net(x)[k, :, place, 0].log_softmax(0)
        for log in logs:
            for name, g in gradients(net, log).items():
                want[name] += log.exp().detach() * g**2 / 2
    torch.testing.assert_close(fisher_of(net, [(x, y)], labels="expected"), want)


def test_sampled_labels_come_to_the_expectation():
    net = mlp((2, 3))
    x = torch.randn(1, 2, dtype=torch.float64)
    data = [(x.expand(4000, 2), torch.zeros(4000, dtype=torch.long))]
    torch.testing.assert_close(
        fisher_of(net, data, labels="sampled"), fisher_of(net, [(x, torch.zeros(1).long())]), rtol=0.1, atol=1e-3
    )


def test_samples_cut_the_last_batch():
    net, data = mlp(), classes()
    x, y = torch.cat([x for x, _ in data])[:7], torch.cat([y for _, y in data])[:7]
    torch.testing.assert_close(fisher_of(net, data, samples=7), fisher_of(net, [(x, y)]))


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_language_models_count_the_places_that_their_loss_counts(name):
    """Ignored labels leave the same information as data without their tokens' predictions."""
    net = lm(name)
    batch = sentences()
    outputs = net(**batch)
    aligned = aligned_target(outputs, batch["labels"])
    assert torch.equal(aligned[:, :-1], batch["labels"][:, 1:] if name == "gpt2" else batch["labels"][:, :-1])
    assert torch.equal(aligned[:, -1], torch.full((3,), -100) if name == "gpt2" else batch["labels"][:, -1])
    batch["labels"][:, :] = -100
    batch["labels"][:, 2] = batch["input_ids"][:, 2]
    found = fisher_of(net, [batch], labels="expected")
    place = 1 if name == "gpt2" else 2
    want = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for k in range(3):
        one = {key: v[k : k + 1] for key, v in batch.items()}
        logs = net(**one).logits[0, place].log_softmax(-1)
        for log in logs:
            found_, names = torch.autograd.grad(log, list(net.parameters()), retain_graph=True, allow_unused=True), want
            for n, g in zip(names, found_, strict=True):
                want[n] += 0 if g is None else log.exp().detach() * g**2 / 3
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-7)


def test_fisher_merge_is_the_weighted_average_and_leaves_the_rest_to_the_weights():
    a, b, data = mlp(seed=1), mlp(seed=2), classes()
    for net in (a, b):
        net.register_buffer("seen", net[0].bias.detach()[:1].clone())
    merged = metanet.merge([a, b], "fisher", model=a, data=data, weights=[1.0, 3.0], floor=0.0)
    fa, fb = fisher_of(a, data), fisher_of(b, data)
    for n, p in a.named_parameters():
        q = b.state_dict()[n]
        torch.testing.assert_close(merged[n], (fa[n] * p + 3 * fb[n] * q).detach() / (fa[n] + 3 * fb[n]))
    torch.testing.assert_close(merged["seen"], 0.25 * a.seen + 0.75 * b.seen)


def test_fisher_takes_each_models_own_data():
    a, b, mine, yours = mlp(seed=1), mlp(seed=2), classes(seed=1), classes(seed=2)
    merged = metanet.merge([a, b], "fisher", model=a, data=DataPerModel([mine, yours]), floor=0.0)
    fa, fb = fisher_of(a, mine), fisher_of(b, yours)
    want = (fa["0.weight"] * a[0].weight + fb["0.weight"] * b[0].weight) / (fa["0.weight"] + fb["0.weight"])
    torch.testing.assert_close(merged["0.weight"], want.detach())
    with pytest.raises(MetanetError, match="data of 1 models, but 2"):
        metanet.merge([a, b], "fisher", model=a, data=DataPerModel([mine]))


@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_regmean_solves_the_stacked_regression(alpha):
    a, b, mine, yours = mlp((4, 3), seed=1), mlp((4, 3), seed=2), classes(20, seed=1), classes(20, seed=2)
    merged = metanet.merge([a, b], "regmean", model=a, data=DataPerModel([mine, yours]), alpha=alpha)
    x, z = torch.cat([x for x, _ in mine]), torch.cat([x for x, _ in yours])
    wa, wb = a[0].weight.detach(), b[0].weight.detach()
    if alpha == 1.0:
        want = torch.linalg.lstsq(torch.cat([x, z]), torch.cat([x @ wa.T, z @ wb.T])).solution.T
    else:  # every input on its own
        p, q = (x**2).sum(0), (z**2).sum(0)
        want = (p * wa + q * wb) / (p + q)
    torch.testing.assert_close(merged["0.weight"], want)
    torch.testing.assert_close(merged["0.bias"], (a[0].bias + b[0].bias).detach() / 2)
    assert merged.report["tensors merged by regression"] == 1


def test_regmean_leaves_to_the_average_what_inputs_say_nothing_of():
    a, b, data = mlp((4, 3), seed=1), mlp((4, 3), seed=2), classes()
    data = [(x * torch.tensor([1.0, 0.0, 1.0, 1.0]).double(), y) for x, y in data]
    plain = metanet.merge([a, b], "linear")["0.weight"]
    for alpha in (0.9, 1.0):
        merged = metanet.merge([a, b], "regmean", model=a, data=data, alpha=alpha)["0.weight"]
        torch.testing.assert_close(merged[:, 1], plain[:, 1])


@pytest.mark.parametrize("groups", [1, 2])
def test_regmean_of_a_convolution_is_that_of_its_patches(groups):
    torch.manual_seed(0)
    make = lambda: nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=groups).double()  # noqa: E731
    a, b = make(), make()
    x, z = torch.randn(2, 9, 4, 7, 8, dtype=torch.float64)
    merged = metanet.merge([a, b], "regmean", model=a, data=DataPerModel([[(x,)], [(z,)]]), alpha=1.0)["weight"]
    patches = [F.unfold(t, (3, 2), dilation=(1, 2), padding=1, stride=2).mT.flatten(0, 1) for t in (x, z)]
    for k in range(groups):
        size, rows = 24 // groups, slice(k * 6 // groups, (k + 1) * 6 // groups)
        x, z = (p[:, k * size : (k + 1) * size] for p in patches)
        wa, wb = (net.weight[rows].flatten(1).detach() for net in (a, b))
        want = torch.linalg.lstsq(torch.cat([x, z]), torch.cat([x @ wa.T, z @ wb.T])).solution.T
        torch.testing.assert_close(merged[rows].flatten(1), want)


class Odd(nn.Module):
    """Packed, stacked, repeated, tied and otherwise used matrices."""

    def __init__(self):
        super().__init__()
        self.packed = nn.Parameter(torch.randn(8, 4))  # two maps, one of each half of its rows
        self.experts = nn.Parameter(torch.randn(2, 4, 4))  # stored (inputs, outputs)
        self.twice = nn.Linear(4, 4, bias=False)
        self.tied = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.tied.weight
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        one, two = self.packed.chunk(2)
        x = torch.stack([x @ one.T, F.linear(x, two)])
        x = torch.bmm(x.flatten(1, 2), self.experts).sum(0).view(-1, 3, 4)
        x = self.twice(self.twice(x)) + self.tied.weight[0]
        x = self.lstm(x)[0]
        return self.head(self.attention(x, x, x)[0])


def test_gram_matrices_are_found_by_what_multiplies_not_by_module():
    torch.manual_seed(0)
    net = Odd().double().eval()
    x = torch.randn(7, 3, 4, dtype=torch.float64)
    problem = Problem((), model=net, data=[(x,)])
    found, other = grams(working_copy(problem), problem.data, Runner(CPU))
    flat = x.flatten(0, 1)
    halves = {b.start: g[0] for b, g in found["packed"].items()}
    assert set(halves) == {0, 16} and not other & {"packed", "experts", "twice.weight"}
    for gram in halves.values():
        torch.testing.assert_close(gram, flat.T @ flat / 7)
    ((block, stacked),) = found["experts"].items()
    assert block.transposed and block.batch == 2
    first = flat @ net.packed[:4].T
    torch.testing.assert_close(stacked[0], (first.T @ first / 7).detach())
    assert torch.equal(block.of(net.experts), net.experts.mT)
    middle = torch.stack([first, flat @ net.packed[4:].T])
    one = torch.bmm(middle, net.experts).sum(0)
    two = net.twice(one)
    (twice,) = found["twice.weight"].values()
    torch.testing.assert_close(twice[0], ((one.T @ one + two.T @ two) / 7).detach())
    assert "tied.weight" in other  # the head's regression would move the embedding
    assert {"lstm.weight_ih_l0", "lstm.weight_hh_l0", "attention.in_proj_weight"} <= set(found)
    assert not other & {
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }


def test_hidden_tokens_do_not_count():
    net = lm("gpt2", tie_word_embeddings=False)
    batch = sentences()
    batch["attention_mask"][:, 3:] = 0
    other = copy.deepcopy(batch)
    other["input_ids"][:, 3:] = 0
    first, second = (grams(net, [b], Runner(CPU))[0]["transformer.h.0.attn.c_attn.weight"] for b in (batch, other))
    ((block, one),) = first.items()
    assert block.transposed and block.inputs == 8 and block.rows == 24
    torch.testing.assert_close(one, second[block])


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
    return [{"weight": torch.tensor([[s]])} for s in slopes], nn.Linear(1, 1, bias=False), [(torch.ones(4, 1),) * 2]


def test_greedy_soup_by_hand():
    models, net, data = lines(3.0, 0.5, 1.4, 0.9)  # losses 4, 0.25, 0.16, 0.01
    merged = metanet.merge(models, "greedy_soup", model=net, data=data)
    # 0.9 is best; with 1.4 it is 1.15: worse; with 0.5 it is 0.7: worse; with 3 it is 1.95: worse
    assert merged["weight"].item() == pytest.approx(0.9)
    assert merged.report["models in the soup"] == "3"
    models, *_ = lines(3.0, 0.6, 1.4, 0.8)
    merged = metanet.merge(models, "greedy_soup", model=net, data=data)
    # 0.8, then 1.4 (of equals the one that comes first is 0.6): 0.7 worse, 1.1 better, and no more
    assert merged.report["models in the soup"] == "3, 2" and merged["weight"].item() == pytest.approx(1.1)
    assert merged.report["model 0 loss"] == pytest.approx(4.0) and merged.report["soup loss"] == pytest.approx(0.01)


def test_greedy_soup_by_accuracy_keeps_what_is_as_good():
    models = [mlp(seed=s) for s in (1, 1, 2)]
    data = classes(40)
    merged = metanet.merge(models, "greedy_soup", model=models[0], data=data)
    assert "soup accuracy" in merged.report
    assert {"0", "1"} <= set(merged.report["models in the soup"].split(", ")) or merged.report["model 2 accuracy"] > (
        merged.report["model 0 accuracy"]
    )


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
        merged = metanet.merge([new], "bcwi", base=old, model=old, data=data, alpha=alpha, importance=importance)
        assert all(torch.equal(merged[n], t) for n, t in end.state_dict().items())


def test_bcwi_between_the_ends():
    old, new, more, data = mlp(seed=1), mlp(seed=2), mlp(seed=3), classes()
    importance = fisher_of(old, data)
    mean = torch.cat([f.flatten() for f in importance.values()]).mean()
    merged = metanet.merge([new, more], "bcwi", base=old, model=old, data=data, alpha=0.3, importance=True)
    plain = metanet.merge([new, more], "bcwi", base=old, alpha=0.3)
    for n, start in old.named_parameters():
        soup = (new.state_dict()[n] + more.state_dict()[n]) / 2
        f = importance[n] / mean
        torch.testing.assert_close(merged[n], ((0.3 * f * start + 0.7 * soup) / (0.3 * f + 0.7)).detach())
        torch.testing.assert_close(plain[n], (0.3 * start + 0.7 * soup).detach())
    assert plain.report == {"alpha": 0.3}


def test_bcwi_chooses_the_fewest_negative_flips_at_equal_accuracy():
    old, new, data = mlp(seed=1), mlp(seed=2), classes(60)
    merged = metanet.merge([new], "bcwi", base=old, model=old, data=data, steps=10)
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    kept, right = {}, old(x).argmax(-1) == y
    for k in range(11):
        net = copy.deepcopy(old)
        net.load_state_dict({n: torch.lerp(new.state_dict()[n], t, k / 10) for n, t in old.state_dict().items()})
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
    assert merged.report["alpha"] == pytest.approx(2 / 6) and merged["weight"].item() == pytest.approx(0.9)
    assert "new negative flips" not in merged.report


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_networks_are_run_in_float32(method):
    net, data = mlp((4, 6, 3)).to(torch.bfloat16), [(x.float(), y) for x, y in classes()]
    other = mlp((4, 6, 3), seed=1).to(torch.bfloat16)
    base = {"base": other} if method == "bcwi" else {}
    merged = metanet.merge([net, other], method, model=net, data=data, **base)
    assert all(merged[n].dtype == torch.bfloat16 and merged[n].isfinite().all() for n in net.state_dict())
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
