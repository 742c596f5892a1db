"""RegMean: against least squares, and where Gram matrices are found."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metanet
from merging.data_methods import CPU, classes, lm, mlp, sentences
from metanet.evaluation import Runner, working_copy
from metanet.merging import DataPerModel
from metanet.merging._part import Problem
from metanet.merging.statistics._grams import grams


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
def test_regmean_solves_the_stacked_regression(alpha):
    a, b, mine, yours = (
        mlp((4, 3), seed=1),
        mlp((4, 3), seed=2),
        classes(20, seed=1),
        classes(20, seed=2),
    )
    merged = metanet.merge(
        [a, b],
        "regmean",
        model=a,
        data=DataPerModel([mine, yours]),
        alpha=alpha,
        weights=[1.0, 3.0],
    )
    x, z = torch.cat([x for x, _ in mine]), torch.cat([x for x, _ in yours])
    wa, wb = a[0].weight.detach(), b[0].weight.detach()
    if alpha == 1.0:
        z = 3**0.5 * z
        want = torch.linalg.lstsq(torch.cat([x, z]), torch.cat([x @ wa.T, z @ wb.T])).solution.T
    else:  # off-diagonals scaled down; with 0, every input is on its own
        p, q = (
            k * (alpha * g + (1 - alpha) * g.diag().diag()) for k, g in ((1, x.T @ x), (3, z.T @ z))
        )
        want = torch.linalg.solve(p + q, p @ wa.T + q @ wb.T).T
    torch.testing.assert_close(merged["0.weight"], want)
    torch.testing.assert_close(merged["0.bias"], (a[0].bias + 3 * b[0].bias).detach() / 4)
    assert merged.report["tensors merged by regression"] == 1


def test_regmean_takes_so_many_samples():
    a, b, data = mlp((4, 3), seed=1), mlp((4, 3), seed=2), classes(20)
    x = torch.cat([x for x, _ in data])[:7]
    few, cut, every = (
        metanet.merge([a, b], "regmean", model=a, data=DataPerModel([data, each]), samples=samples)[
            "0.weight"
        ]
        for each, samples in ((data, 7), (data[::-1], 7), (data[::-1], None))
    )
    alone = metanet.merge([a, b], "regmean", model=a, data=[(x,)])["0.weight"]
    torch.testing.assert_close(few, alone)
    assert not torch.allclose(few, cut) and not torch.allclose(cut, every)


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

    def make():
        return nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=groups).double()

    a, b = make(), make()
    x, z = torch.randn(2, 9, 4, 7, 8, dtype=torch.float64)
    merged = metanet.merge(
        [a, b], "regmean", model=a, data=DataPerModel([[(x,)], [(z,)]]), alpha=1.0
    )["weight"]
    patches = [
        F.unfold(t, (3, 2), dilation=(1, 2), padding=1, stride=2).mT.flatten(0, 1) for t in (x, z)
    ]
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
    found, other = grams(working_copy(problem.network, CPU), problem.data, Runner(CPU))
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
    first, second = (
        grams(net, [b], Runner(CPU))[0]["transformer.h.0.attn.c_attn.weight"]
        for b in (batch, other)
    )
    ((block, one),) = first.items()
    assert block.transposed and block.inputs == 8 and block.rows == 24
    torch.testing.assert_close(one, second[block])
