"""metanet.verify: right specs pass, wrong ones are found, and what cannot be seen is explained."""

import pytest
import torch
from torch import nn

import metanet
from metanet.symmetry import Concat, Fixed, Group, Leaf, Product
from metanet.testing import assert_function_preserved
from metanet.verification import verify
from verification.specs import MLP_AXES, MLP_GROUPS, mlp, spec_of


def test_a_right_spec_passes_and_every_axis_is_seen():
    report = verify(mlp(), spec_of(mlp(), MLP_GROUPS, MLP_AXES), torch.randn(5, 4))
    assert report.ok
    assert report.change < 1e-13
    assert report.moved > 0.5
    assert len(report.sensitivity) == report.movable == 6
    assert min(report.sensitivity.values()) > 1e-3
    assert not report.unseen
    assert str(report).startswith("ok: legal change")


@pytest.mark.parametrize(
    "wrong",
    [
        {"2.weight": ("a", "b")},  # the axes of a square matrix exchanged
        {"0.bias": ("b",)},  # a tensor in the wrong group
        {"4.weight": (None, "c")},  # a group split in two
        {"2.bias": (None,)},  # a tensor forgotten
        {"4.bias": (Concat((Leaf("out", 2), Fixed(1))),)},  # outputs moved
    ],
    ids=["exchanged", "wrong group", "split", "forgotten", "outputs"],
)
def test_a_wrong_spec_is_found(wrong):
    groups = [*MLP_GROUPS, Group(name="c", size=6), Group(name="out", size=2)]
    report = verify(mlp(), spec_of(mlp(), groups, {**MLP_AXES, **wrong}), torch.randn(5, 4))
    assert report.change > 1e-3
    assert not report.ok
    assert str(report).startswith("FAILED")


def test_merged_groups_are_sound_and_pass():
    merged = {n: tuple("a" if x == "b" else x for x in axes) for n, axes in MLP_AXES.items()}
    assert verify(mlp(), spec_of(mlp(), MLP_GROUPS, merged), torch.randn(5, 4)).ok


class SharedDims(nn.Module):
    """Heads whose dims meet in one sum: all heads must agree on the order of their dims."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.head = nn.Linear(4, 6), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.proj(x).relu().view(-1, 2, 3).sum(1))


def test_a_key_too_many_is_found():
    heads = Group(name="heads", size=2)
    product = Product((Leaf("heads", 2), Leaf("dims", 3)))
    axes = {"proj.weight": (product, None), "proj.bias": (product,)}
    model, x = SharedDims(), torch.randn(5, 4)
    right = spec_of(
        model, [heads, Group(name="dims", size=3)], {**axes, "head.weight": (None, "dims")}
    )
    assert verify(model, right, x).ok
    wrong = spec_of(model, [heads, Group(name="dims", size=3, keys=("heads",))], axes)
    assert verify(model, wrong, x).change > 1e-3


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(6, track_running_stats=False), nn.InstanceNorm1d(6)], ids=str
)
def test_a_bias_that_a_norm_subtracts_again_has_its_reason(norm):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv1d(2, 6, 1), norm, nn.Conv1d(6, 3, 2)

        def forward(self, x):
            return self.head(self.norm(self.conv(x)).relu())

    axes = {"conv.weight": ("a", None, None), "conv.bias": ("a",), "head.weight": (None, "a", None)}
    axes |= {f"norm.{n}": ("a",) for n, _ in norm.named_parameters()}
    model = Normed()
    report = verify(model, spec_of(model, [Group(name="a", size=6)], axes), torch.randn(3, 2, 7))
    assert report.unseen == (("conv.bias", 0),)
    assert "does not depend on this tensor" in report.reasons["conv.bias", 0]
    assert report.ok
    assert "conv.bias axis 0: the function does not depend" in str(report)


class Reads(nn.Module):
    """A table of which the example reads the first rows; a vector and a matrix of which only sums
    count."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(12, 6), nn.Linear(6, 3)
        self.counts, self.grid = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6, 2))

    def forward(self, ids):
        sums = self.counts.sum() * ids + self.grid.sum(0).prod() * ids**2
        return self.head(self.table(ids).tanh()) + sums[..., None]


IDS = torch.tensor([[0, 1, 3], [2, 2, 1]])


def test_rows_that_are_not_read_and_sums_have_their_reasons():
    groups = [Group(name="rows", size=8), Group(name="a", size=6), Group(name="c", size=6)]
    axes = {
        "table.weight": (Concat((Fixed(4), Leaf("rows", 8))), "a"),
        "head.weight": (None, "a"),
        "counts": ("c",),
    }
    report = verify(Reads(), spec_of(Reads(), groups, axes), IDS)
    assert set(report.unseen) == {("table.weight", 0), ("counts", 0)}
    assert "entries that move" in report.reasons["table.weight", 0]
    assert "invariant in this direction" in report.reasons["counts", 0]
    assert report.ok


def test_an_unseen_matrix_without_a_reason_is_not_ok():
    class Twice(Reads):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Parameter(self.grid.detach().clone())

        def forward(self, ids):
            return super().forward(ids) + self.other.sum(0).sum()

    groups = [Group(name="c", size=6)]
    report = verify(
        Twice(), spec_of(Twice(), groups, {"grid": ("c", None), "other": ("c", None)}), IDS
    )
    assert report.change < 1e-12
    assert set(report.unexplained) == {("grid", 0), ("other", 0)}
    assert not report.ok
    assert "grid axis 0: no reason found" in str(report)
    # a group of one axis alone: what the test moves is what a transform moves
    report = verify(Reads(), spec_of(Reads(), groups, {"grid": ("c", None)}), IDS)
    assert report.ok
    assert report.reasons[("grid", 0)].startswith("its groups act on nothing else")


def test_a_reason_does_not_excuse_a_change():
    groups = [Group(name="rows", size=8), Group(name="a", size=6)]
    axes = {"table.weight": (Concat((Fixed(4), Leaf("rows", 8))), "a")}
    report = verify(Reads(), spec_of(Reads(), groups, axes), IDS)
    assert ("table.weight", 0) in report.reasons
    assert not report.ok


def test_a_spec_that_moves_nothing_says_so():
    report = verify(mlp(), spec_of(mlp(), [], {}), torch.randn(5, 4))
    assert report.moved == 0
    assert report.movable == 0
    assert report.ok
    assert "moves nothing" in str(report)


def test_named_axes_that_only_serve_as_keys_are_not_checked():
    fixed = Group(name="heads", size=2, kind="fixed")
    product = Product((Leaf("heads", 2), Leaf("dims", 3)))
    axes = {"proj.weight": (product, None), "proj.bias": (product,), "head.weight": (None, "dims")}
    report = verify(
        SharedDims(),
        spec_of(SharedDims(), [fixed, Group(name="dims", size=3)], axes),
        torch.randn(5, 4),
    )
    assert report.ok
    only = spec_of(SharedDims(), [fixed], {"proj.bias": (Product((Leaf("heads", 2), Fixed(3))),)})
    assert verify(SharedDims(), only, torch.randn(5, 4)).movable == 0


def test_axes_can_be_sampled_or_left_out():
    model, x = mlp(), torch.randn(5, 4)
    spec = spec_of(model, MLP_GROUPS, MLP_AXES)
    every, some, none = (
        verify(model, spec, x),
        verify(model, spec, x, axes=2),
        verify(model, spec, x, sensitivity=False),
    )
    assert len(some.sensitivity) == 2
    assert some.movable == none.movable == 6
    assert set(some.sensitivity) < set(every.sensitivity)
    assert some.sensitivity == verify(model, spec, x, axes=2).sensitivity
    assert (
        len({frozenset(verify(model, spec, x, axes=2, seed=s).sensitivity) for s in range(5)}) > 1
    )
    assert not none.sensitivity
    assert none.change < 1e-12
    assert "2 of 6 axes checked" in str(some)
    assert len(verify(model, spec, x, axes=99, progress=True).sensitivity) == 6


def test_tied_names_move_together():
    class Tied(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)
            if tied:
                self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids).tanh())

    both = {"embed.weight": (None, "a"), "head.weight": (None, "a")}
    spec, ids = spec_of(Tied(True), [Group(name="a", size=6)], both), torch.randint(0, 9, (3, 5))
    for model in (
        Tied(True),
        Tied(False),
    ):  # the spec decides: a copy that lost its ties holds equal values
        report = verify(model, spec, ids)
        assert report.change < 1e-13
        # nothing but the table has this axis: what moves it in both places at once is legal
        assert report.unseen == tuple(report.sensitivity) == (("embed.weight", 1),)
        assert report.ok


def test_the_public_names_and_the_assertion():
    assert metanet.verify is verify
    report = assert_function_preserved(mlp(), torch.randn(5, 4))
    assert isinstance(report, metanet.Verification)
