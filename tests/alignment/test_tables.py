"""Masks and index tables under alignment and merging."""

import pytest
import torch
from torch import Tensor, nn

import metanet
from metanet.merging.features._roles import candidates, roles_of


class Pruned(nn.Module):
    """Two hidden layers, the first of which is masked; the second is looked up by an index
    table."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.register_buffer("mask", torch.ones(8, dtype=torch.bool))
        self.register_buffer("index", torch.arange(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu() * self.mask).relu()[:, self.index].tanh())


@pytest.fixture
def net() -> Pruned:
    torch.manual_seed(0)
    return Pruned()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(32, 4)


def groups(spec) -> tuple[str, str]:
    """Of the mask and of the table."""
    return str(spec.tensors["mask"].axes[0]).partition("[")[0], str(
        spec.tensors["index"].axes[0]
    ).partition("[")[0]


@pytest.mark.filterwarnings(
    "ignore:1 groups stay as they are"
)  # what a table looks up is no layer's output
@pytest.mark.parametrize("method", ["weight", "activation", "sinkhorn"])
def test_a_planted_relabelling_is_found_again_with_its_tables(net, x, method):
    arch = metanet.trace(net, x)
    a = {**net.state_dict(), "mask": torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool()}
    t = arch.spec.sample(torch.Generator().manual_seed(3))
    b = t(a)
    assert not torch.equal(a["mask"], b["mask"]) and not torch.equal(a["index"], b["index"])
    given = {"weight": {}, "activation": {"model": net, "data": [(x, None)]}, "sinkhorn": {}}[
        method
    ]
    moved = metanet.align(b, to=a, arch=arch, method=method, **given)(b)
    alive = a["mask"]  # of two dead neurons nothing but their weights tells which is which
    torch.testing.assert_close(moved["a.weight"][alive], a["a.weight"][alive])
    assert torch.equal(moved["mask"], a["mask"])
    if method == "weight":
        assert all(torch.equal(moved[n], a[n]) for n in a)


def test_tables_that_both_have_alike_stay(net, x):
    """Else the moved checkpoint would read the same weights by another table, and merging would
    refuse it."""
    arch = metanet.trace(net, x)
    mask, index = groups(arch.spec)
    a = net.state_dict()
    torch.manual_seed(1)
    b = Pruned().state_dict()
    found = metanet.align(b, to=a, arch=arch)
    assert mask in found.transform.elements, "a mask of ones does not mind"
    assert index not in found.transform.elements and "index" in found.identity[index]
    moved = found(b)
    assert torch.equal(moved["index"], a["index"]) and torch.equal(moved["mask"], a["mask"])
    merged = metanet.merge([a, b], align="weight", arch=arch)
    assert torch.equal(merged["index"], a["index"])
    torch.testing.assert_close(merged["a.weight"], (a["a.weight"] + moved["a.weight"]) / 2)


def test_a_mask_that_both_have_alike_stays(net, x):
    arch = metanet.trace(net, x)
    mask, _ = groups(arch.spec)
    pruned = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool()
    torch.manual_seed(1)
    a, b = ({**net.state_dict(), "mask": pruned}, {**Pruned().state_dict(), "mask": pruned})
    found = metanet.align([b], to=a, arch=arch)[0]
    assert mask not in found.transform.elements and "mask" in found.identity[mask]
    other = {**b, "mask": ~pruned}
    assert mask in metanet.align(other, to=a, arch=arch).transform.elements


def test_a_checkpoint_may_lack_its_tables(net, x):
    arch = metanet.trace(net, x)
    a = {n: t for n, t in net.state_dict().items() if t.is_floating_point()}
    b = arch.spec.sample(torch.Generator().manual_seed(3))(a)
    moved = metanet.align(b, to=a, arch=arch)(b)
    assert all(torch.equal(moved[n], a[n]) for n in a)


def test_masked_neurons_are_not_averaged_within_a_network(net, x):
    """Merging features would need the mean of truth values: such groups stay, by name."""
    arch = metanet.trace(net, x)
    asked, why = candidates(arch.spec, roles_of(arch.template))
    mask, index = groups(arch.spec)
    assert not {mask, index} & {*asked}
    assert "truth values" in why[mask] and "truth values" in why[index]
