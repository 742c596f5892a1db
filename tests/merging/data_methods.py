"""Small networks and data for merge methods that look at data."""

import pytest
import torch
from torch import nn

from metanet.merging._part import Problem
from metanet.merging.statistics._fisher import fishers

METHODS = ("greedy_soup", "fisher", "regmean", "bcwi")
CPU = torch.device("cpu")


def mlp(sizes=(4, 6, 3), seed=0):
    torch.manual_seed(seed)
    layers = [
        m for i, o in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(i, o), nn.Tanh())
    ]
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
        config = transformers.GPT2Config(
            vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, **more
        )
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.BertConfig(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=8, **more,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config).eval()


def sentences(count=3, length=5):
    ids = torch.randint(11, (count, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
