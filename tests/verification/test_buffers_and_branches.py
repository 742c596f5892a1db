"""Verification draws masks and tables anew, and goes the other way at branches; what it could not
do it names."""

import inspect
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import metanet
from metanet.symmetry import Fixed, Leaf, SymmetrySpec
from metanet.verification._integers import redraw_integers


class Layers(nn.Module):
    """Two layers with a table between them, which ``run`` uses."""

    def __init__(self, run, **tables: Tensor) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        for name, table in tables.items():
            self.register_buffer(name, table)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.run(self, self.a(x)).tanh())


torch.manual_seed(0)  # the networks below are drawn when the file is imported
X = torch.randn(5, 4)


def free(net: nn.Module) -> SymmetrySpec:
    """The spec of the network without tables and branches: all six units move, and nothing else
    does."""
    spec = metanet.trace(nn.Sequential(net.a, nn.Tanh(), net.b), X).spec
    names = {"0": "a", "2": "b"}
    return SymmetrySpec(spec.groups, {f"{names[n[0]]}{n[1:]}": t for n, t in spec.tensors.items()})


UNSOUND = {
    "mask of ones": Layers(lambda m, h: h * m.mask, mask=torch.ones(6, dtype=torch.bool)),
    "mask of integers": Layers(lambda m, h: h * m.mask, mask=torch.ones(6, dtype=torch.int64)),
    "mask that fills": Layers(
        lambda m, h: h.masked_fill(m.mask, -3.0), mask=torch.zeros(6, dtype=torch.bool)
    ),
    "index": Layers(lambda m, h: h[:, m.index], index=torch.arange(6)),
    "index of zeros": Layers(
        lambda m, h: h + h[:, m.index], index=torch.zeros(6, dtype=torch.int64)
    ),
    "unit that is read": Layers(lambda m, h: -h if h[0, 0].item() > 0 else h),
    "unit that is read as a list": Layers(lambda m, h: h.cos() if h[0].tolist()[2] > 0 else h),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_spec_that_takes_a_fresh_table_or_one_branch_for_granted_fails(name):
    net = UNSOUND[name].eval()
    assert metanet.verify(net, free(net), X).change > 1e-3
    assert metanet.verify(net, metanet.trace(net, X).spec, X).change < 1e-10


def test_a_table_left_out_of_its_group_is_seen():
    net = UNSOUND["mask of ones"]
    spec = metanet.trace(net, X).spec
    mask = spec.tensors["mask"]
    wrong = SymmetrySpec(
        spec.groups, {**spec.tensors, "mask": replace(mask, axes=(Fixed(6, "by mistake"),))}
    )
    assert isinstance(mask.axes[0], Leaf)
    assert not metanet.verify(net, wrong, X).ok
    report = metanet.verify(net, spec, X)
    assert report.ok and report.sensitivity["mask", 0] > 1e-3


def test_a_table_that_the_output_does_not_show_has_its_reason():
    net = Layers(lambda m, h: h + 0.0 * (h * m.mask), mask=torch.ones(6, dtype=torch.bool))
    report = metanet.verify(net, metanet.trace(net, X).spec, X)
    assert ("mask", 0) in report.unseen and ("mask", 0) in report.reasons and report.ok


def test_the_callers_tables_are_left_alone():
    net = UNSOUND["index"]
    metanet.verify(net, metanet.trace(net, X).spec, X)
    assert torch.equal(net.index, torch.arange(6))


def test_a_branch_that_goes_both_ways_is_not_named():
    net = UNSOUND["unit that is read"]
    assert metanet.verify(net, metanet.trace(net, X).spec, X).stuck == ()


def test_a_branch_that_never_goes_another_way_is_named():
    def run(m: nn.Module, h: Tensor) -> Tensor:
        return h if h.square().sum() >= 0 else -h

    net = Layers(run)
    report = metanet.verify(net, metanet.trace(net, X).spec, X)
    place = f"{inspect.getsourcefile(run)}:{inspect.getsourcelines(run)[1] + 1}"
    assert report.stuck == (place,) and report.ok
    assert place in str(report)


def test_only_the_branch_that_never_changes_is_named():
    def run(m: nn.Module, h: Tensor) -> Tensor:
        h = h.sin() if h[0, 1] > 0 else h.cos()
        return h.exp() if h.max().item() < 7 else h

    report = metanet.verify(net := Layers(run), metanet.trace(net, X).spec, X)
    (place,) = report.stuck
    assert place.endswith(f":{inspect.getsourcelines(run)[1] + 2}")


def test_a_way_that_raises_is_not_taken():
    """A check of its own values that some draws fail; the draw of this seed passes it."""

    def run(m: nn.Module, h: Tensor) -> Tensor:
        assert h[0, 1] > 0, "unit 1 is off"
        return h

    torch.manual_seed(1)  # some of the draws below pass the check, and some don't
    net = Layers(run)
    spec = metanet.trace(Layers(lambda m, h: h), X).spec
    reports, errors = [], []
    for seed in range(6):
        try:
            reports.append(metanet.verify(net, spec, X, seed=seed, sensitivity=False, draws=0))
        except metanet.MetanetError as error:
            errors.append(str(error))
    assert errors and all("unit 1 is off" in text for text in errors)
    assert reports and all(len(report.stuck) == 1 for report in reports)


def test_numbers_that_come_back_into_the_network_are_ways_too():
    report = metanet.verify(
        net := Layers(lambda m, h: h * float(h.sum())), metanet.trace(net, X).spec, X
    )
    assert report.stuck == ()


def test_numbers_of_the_network_itself_are_no_branch_on_data():
    net = Layers(lambda m, h: h.tanh() if int(m.steps) > 1 else h, steps=torch.tensor(3))
    report = metanet.verify(net, metanet.trace(net, X).spec, X)
    assert report.ok and report.stuck == ()


def test_tables_that_allow_no_other_values_are_kept_and_named():
    """Sizes of parts that are read, and a mask that chooses as many rows as the next layer
    expects."""
    sizes = Layers(
        lambda m, h: torch.cat(h.split(m.sizes.tolist(), 1)[::-1], 1), sizes=torch.tensor([1, 2, 3])
    )
    report = metanet.verify(sizes, metanet.trace(sizes, X).spec, X)
    assert report.kept == ("sizes",) and "sizes" in str(report)
    chosen = Layers(
        lambda m, h: h[:, m.chosen] * m.mask,
        chosen=torch.ones(6, dtype=torch.bool),
        mask=torch.ones(6).bool(),
    )
    report = metanet.verify(chosen, metanet.trace(chosen, X).spec, X)
    assert report.kept == ("chosen",), "the mask beside it is drawn anew"


def test_a_mask_that_would_hide_everything_is_not_drawn():
    """A softmax over nothing is NaN: every row keeps something."""
    net = Layers(
        lambda m, h: h.masked_fill(m.hidden, -torch.inf).softmax(-1),
        hidden=torch.zeros(6, dtype=torch.bool),
    )
    for seed in range(5):
        report = metanet.verify(net, metanet.trace(net, X).spec, X, seed=seed)
        assert report.ok and report.kept == ()


@pytest.mark.parametrize(
    ("table", "legal"),
    [
        (torch.arange(50), set(range(50))),
        (torch.zeros(50, dtype=torch.int64), {0, 1}),
        (torch.ones(50, dtype=torch.uint8), {0, 1}),
        (torch.full((50,), 3, dtype=torch.int32), {0, 1, 2, 3}),
        (torch.tensor([7, -1] * 25), {7, -1}),
        (torch.tensor(5), {5}),
    ],
)
def test_integers_stay_among_those_that_are_legal(table, legal):
    drawn = redraw_integers(table, torch.Generator().manual_seed(0))
    assert (
        set(drawn.flatten().tolist()) <= legal
        and drawn.dtype == table.dtype
        and drawn.shape == table.shape
    )
    assert table.ndim == 0 or len(set(drawn.tolist())) > 1


def test_truth_values_are_of_both_kinds_in_every_row():
    drawn = redraw_integers(
        torch.ones(40, 3, 2, dtype=torch.bool), torch.Generator().manual_seed(0)
    )
    assert drawn.any(-1).all() and not drawn.all(-1).any()
