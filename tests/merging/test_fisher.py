"""Fisher information and merging by it: against the definition, computed the slow way."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from merging.data_methods import classes, fisher_of, gradients, lm, mlp, sentences
from metanet import MetanetError
from metanet.evaluation import aligned_target
from metanet.merging import DataPerModel
from metanet.merging._part import Problem
from metanet.merging.statistics._fisher import fishers


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
    net = (
        nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)
        )
        .double()
        .eval()
    )
    data = [(torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.randint(3, (6,)))]
    with monkeypatch.context() as patch:
        patch.delattr("metanet.merging.statistics._fisher._Estimate._alone")
        fast = fisher_of(net, data, labels=labels)
    monkeypatch.setattr("metanet.merging.statistics._fisher._CHUNK", 1)
    monkeypatch.delattr("metanet.merging.statistics._fisher._Estimate._all_at_once")
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
        fisher_of(net, data, labels="sampled"),
        fisher_of(net, [(x, torch.zeros(1).long())]),
        rtol=0.1,
        atol=1e-3,
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
    assert torch.equal(
        aligned[:, :-1], batch["labels"][:, 1:] if name == "gpt2" else batch["labels"][:, :-1]
    )
    assert torch.equal(
        aligned[:, -1], torch.full((3,), -100) if name == "gpt2" else batch["labels"][:, -1]
    )
    batch["labels"][:, :] = -100
    batch["labels"][:, 2] = batch["input_ids"][:, 2]
    found = fisher_of(net, [batch], labels="expected")
    place = 1 if name == "gpt2" else 2
    want = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for k in range(3):
        one = {key: v[k : k + 1] for key, v in batch.items()}
        logs = net(**one).logits[0, place].log_softmax(-1)
        for log in logs:
            found_, names = (
                torch.autograd.grad(
                    log, list(net.parameters()), retain_graph=True, allow_unused=True
                ),
                want,
            )
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
        torch.testing.assert_close(
            merged[n], (fa[n] * p + 3 * fb[n] * q).detach() / (fa[n] + 3 * fb[n])
        )
    torch.testing.assert_close(merged["seen"], 0.25 * a.seen + 0.75 * b.seen)


def test_fisher_takes_each_models_own_data():
    a, b, mine, yours = mlp(seed=1), mlp(seed=2), classes(seed=1), classes(seed=2)
    merged = metanet.merge([a, b], "fisher", model=a, data=DataPerModel([mine, yours]), floor=0.0)
    fa, fb = fisher_of(a, mine), fisher_of(b, yours)
    want = (fa["0.weight"] * a[0].weight + fb["0.weight"] * b[0].weight) / (
        fa["0.weight"] + fb["0.weight"]
    )
    torch.testing.assert_close(merged["0.weight"], want.detach())
    with pytest.raises(MetanetError, match="data of 1 models, but 2"):
        metanet.merge([a, b], "fisher", model=a, data=DataPerModel([mine]))


def test_fisher_floor_and_normalisation():
    a, b, data = mlp(seed=1), mlp(seed=2), classes()
    fa, fb = fisher_of(a, data), fisher_of(b, data)
    ma, mb = (
        sum(v.sum() for v in f.values()) / sum(v.numel() for v in f.values()) for f in (fa, fb)
    )
    for floor, normalize in ((0.7, False), (0.0, True), (0.7, True)):
        merged = metanet.merge(
            [a, b], "fisher", model=a, data=data, floor=floor, normalize=normalize
        )
        for n, p in a.named_parameters():
            u, v = fa[n].clamp(min=floor * ma), fb[n].clamp(min=floor * mb)
            u, v = (u / ma, v / mb) if normalize else (u, v)
            torch.testing.assert_close(
                merged[n], ((u * p + v * b.state_dict()[n]) / (u + v)).detach()
            )
