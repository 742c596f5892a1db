"""Names of one tensor stay one tensor, whatever tells that they are."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import metanet
from metanet.errors import CheckpointError
from metanet.merging import METHODS

RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")


class Tied(nn.Module):
    """An embedding, a layer of it that is used twice, and a head that is the embedding."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.inner, self.head = (
            nn.Embedding(9, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 9, bias=False),
        )
        self.again = self.inner
        self.head.weight = self.first.weight

    def forward(self, x):
        return self.head(self.again(torch.relu(self.inner(self.first(x)))))


PAIRS = [
    ("first.weight", "head.weight"),
    ("inner.weight", "again.weight"),
    ("inner.bias", "again.bias"),
]


def tied_in(merged, pairs=PAIRS):
    return [torch.equal(merged[one], merged[other]) for one, other in pairs]


def networks():
    return [Tied(seed) for seed in range(3)]


def copies(state):
    """The same values, no two of them in one memory."""
    return {name: tensor.clone() for name, tensor in state.items()}


def saved(folder, nets, kind):
    out = []
    for number, net in enumerate(nets):
        path = folder / f"{kind}-{number}.pt"
        content = net.state_dict()
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in content.items()}}
            if kind == "wrapped"
            else content,
            path,
        )
        out.append(path)
    return out


@pytest.mark.parametrize("method", RANDOM)
@pytest.mark.parametrize("kind", ["modules", "state dicts", "files", "wrapped"])
def test_by_storage(kind, method, tmp_path):
    nets = networks()
    if kind == "state dicts":
        nets = [net.state_dict() for net in nets]
    elif kind != "modules":
        nets = saved(tmp_path, nets, kind)
    merged = metanet.merge(nets[1:], method, base=nets[0], density=0.5)
    assert all(tied_in(merged))
    assert not torch.equal(
        merged["first.weight"],
        metanet.merge(nets[1:], method, base=nets[0], density=1.0)["first.weight"],
    )


@pytest.mark.parametrize("how", ["arch", "spec", "model"])
def test_by_the_network(how):
    base, one, other = (copies(net.state_dict()) for net in networks())
    arch = metanet.trace(Tied(), torch.randint(0, 9, (2, 5)))
    told = {"arch": {"arch": arch}, "spec": {"arch": arch.spec}, "model": {"model": Tied()}}[how]
    for method in RANDOM:
        assert all(tied_in(metanet.merge([one, other], method, base=base, density=0.5, **told)))
    assert not any(
        tied_in(metanet.merge([one, other], "dare_ties", base=base, density=0.5), PAIRS[1:2])
    )


def test_by_values_of_embeddings(tmp_path):
    """T5 in a safetensors file has its embedding under up to four names."""
    names = [
        "shared.weight",
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "lm_head.weight",
    ]
    paths = []
    for seed in range(3):
        table = torch.randn(9, 4, generator=torch.Generator().manual_seed(seed))
        paths.append(tmp_path / f"{seed}.safetensors")
        save_file(
            {**{name: table.clone() for name in names}, "norm.weight": torch.ones(4)}, paths[-1]
        )
    merged = metanet.merge(paths[1:], "della", base=paths[0], density=0.5)
    assert all(torch.equal(merged[name], merged[names[0]]) for name in names)


def test_of_some_inputs_only_are_two_tensors_and_named():
    base, one = Tied(0), Tied(1)
    other = copies(Tied(2).state_dict())
    other["head.weight"] += 1
    merged = metanet.merge([one, other], "dare_linear", base=base, density=0.5)
    assert tied_in(merged) == [False, True, True]
    told = [
        text
        for name, text in merged.report.items()
        if name == "tied in some inputs only: head.weight"
    ]
    assert told == ["one tensor with first.weight in 'the base', two in others: two in the result"]


@pytest.mark.parametrize("how", ["arch", "model"])
def test_two_tensors_where_the_network_has_one_are_refused(how):
    one, other = Tied(1).state_dict(), copies(Tied(2).state_dict())
    other["head.weight"] = other["head.weight"] + 1
    told = (
        {"model": Tied()}
        if how == "model"
        else {"arch": metanet.trace(Tied(), torch.randint(0, 9, (2, 5)))}
    )
    with pytest.raises(
        CheckpointError,
        match=r"head.weight and first.weight differ, but are one tensor in the network",
    ):
        metanet.merge([one, other], **told)


def test_options_of_one_name_hold_for_all():
    nets = networks()
    taken = metanet.merge(nets[1:], "dare_linear", base=nets[0], overrides={"head*": {"take": 1}})
    assert torch.equal(taken["first.weight"], nets[2].first.weight) and all(tied_in(taken))
    # An embedding lies before the layers, a head behind them: a gradient must not pull them apart.
    deep = metanet.merge(nets[1:], weights=[{"gradient": [0.0, 1.0]}, 1.0])
    assert all(tied_in(deep))


def test_is_computed_once(monkeypatch):
    calls = []

    def counted(part):
        calls.append(part.name)
        return part.tensors[0]

    method = replace(METHODS["passthrough"], name="counted", function=counted)
    monkeypatch.setitem(METHODS._entries, "counted", method)
    merged = metanet.merge([Tied(0)], "counted")
    found = dict(merged)
    assert sorted(calls) == ["first.weight", "inner.bias", "inner.weight"]
    found["first.weight"].zero_()  # every reading has memory of its own
    assert found["head.weight"].abs().sum() > 0 and merged["first.weight"].abs().sum() > 0


def test_the_result_of_a_merge_tells_its_ties():
    base, *nets = networks()
    once = metanet.merge(nets, "dare_linear", base=base, density=0.5)
    assert all(tied_in(metanet.merge([once, nets[0]], "della", base=base, density=0.5)))


def test_layers_that_slices_put_elsewhere_are_no_longer_those_that_were_tied():
    """layers.0 and layers.1 are one tensor; the result has layers 2 and 1 of the models."""
    models = []
    for seed in (0, 1):
        shared, own = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(seed))
        models.append({"layers.0.w": shared, "layers.1.w": shared, "layers.2.w": own})
    merged = metanet.merge(models, slices=[{0: [2, 3], 1: [2, 3]}, {0: [1, 2], 1: [1, 2]}])
    assert torch.equal(
        merged["layers.0.w"], torch.lerp(models[0]["layers.2.w"], models[1]["layers.2.w"], 0.5)
    )
    assert torch.equal(
        merged["layers.1.w"], torch.lerp(models[0]["layers.1.w"], models[1]["layers.1.w"], 0.5)
    )
