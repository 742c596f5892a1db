"""The groups that come out are those one derives by hand."""

import pytest
import torch
from torch import nn

import metanet
from metanet.errors import MetanetError
from metanet.symmetry import SymmetrySpec
from networks import ARCHITECTURES, Basic
from symmetry.constructs import CONSTRUCTS


def groups(name: str) -> dict[str, int]:
    make, example = ARCHITECTURES[name]
    return {g.name: g.size for g in metanet.trace(make(), example()).spec.groups}


def test_by_hand():
    assert groups("mlp") == {"1": 12, "3": 9}
    assert groups("siren") == {"seq.0": 16, "seq.1": 16}
    assert groups("cnn_flatten") == {"0": 4, "3": 6}
    assert groups("residual") == {"0": 6, "1.body.0": 5}
    assert groups("resnet") == {"0": 4, "3.conv1": 6, "3.conv2": 6}
    assert groups("tied") == {"stem": 6}


class ResNet18(nn.Module):
    """Torchvision's layout, a few channels wide: stem, four stages of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 7, 2, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        widths = (4, 6, 8, 10)
        self.first = nn.ModuleList([_Plain(4), _Plain(4)])
        self.rest = nn.ModuleList(
            nn.Sequential(Basic(a, b), _Plain(b)) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.fc = nn.Linear(10, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in (*self.first, *self.rest):
            x = block(x)
        return self.fc(x.mean((2, 3)))


class _Plain(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n, n, 3, 1, 1, bias=False), nn.BatchNorm2d(n)
        self.conv2, self.bn2 = nn.Conv2d(n, n, 3, 1, 1, bias=False), nn.BatchNorm2d(n)

    def forward(self, x):
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def test_resnet18_has_the_twelve_groups_of_git_re_basin():
    """Four residual streams and eight inner widths (Ainsworth et al. 2023, appendix)."""
    arch = metanet.trace(ResNet18(), torch.randn(2, 3, 64, 64))
    assert len(arch.spec.groups) == 12
    assert not arch.warnings


def test_conv_to_linear_by_flatten_keeps_positions():
    make, example = ARCHITECTURES["cnn_flatten"]
    spec = metanet.trace(make(), example()).spec
    assert str(spec.tensors["6.weight"].axes[1]) == "(3[6] x 4)"


def test_explain_names_the_cause():
    make, example = ARCHITECTURES["cnn_flatten"]
    spec = metanet.trace(make(), example()).spec
    assert "position in a convolution kernel" in spec.explain("0.weight")
    assert "axis of the network's output" in spec.explain("6.weight")
    assert "moves with 3, shared by" in spec.explain("3.weight")
    with pytest.raises(MetanetError, match="no tensor 'nothing'"):
        spec.explain("nothing")


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(torch.renorm(self.a(x), 2, 1, 1.0))


def test_an_operation_without_a_rule_pins_and_is_named():
    arch = metanet.trace(Strange(), torch.randn(5, 4))
    assert not arch.spec.groups
    assert any("aten.renorm has no rule" in w for w in arch.warnings)
    assert "aten.renorm has no rule" in arch.spec.explain("a.weight")


class Constant(nn.Module):
    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x):
        return self.b(self.a(x) * self.table)


@pytest.mark.parametrize(
    ("table", "free"), [(torch.arange(6.0), 0), (torch.full((6,), 2.0), 1), (torch.ones(5, 1), 1)]
)
def test_a_constant_pins_an_axis_along_which_it_varies(table, free):
    assert len(metanet.trace(Constant(table), torch.randn(5, 4)).spec.groups) == free


def test_unread_parameters_are_fixed_and_reported():
    class Unread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.spare = nn.Linear(4, 3), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x)

    arch = metanet.trace(Unread(), torch.randn(5, 4))
    assert not arch.spec.groups
    assert any("did not read 2 tensors" in w and "spare.weight" in w for w in arch.warnings)


def test_a_batch_of_one_is_warned_about():
    assert any(
        "use a batch of 2" in w for w in metanet.trace(nn.Linear(3, 3), torch.randn(1, 3)).warnings
    )


def test_print_shows_groups_and_axes():
    make, example = ARCHITECTURES["grouped"]
    text = str(metanet.trace(make(), example()).spec)
    assert "5 groups" in text
    assert "4.weight   (" in text


class Experts(nn.Module):
    """Stacked matrices of which the example reads some only: what a router does not choose is not
    run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.up, self.down = nn.Parameter(torch.randn(3, 5, 6)), nn.Parameter(torch.randn(3, 6, 5))

    def forward(self, x):
        x = self.stem(x)
        for chosen in (1, 2):
            x = x + torch.relu(x @ self.up[chosen].T) @ self.down[chosen].T
        return self.head(x)


def test_parts_that_are_not_read_move_with_those_that_are():
    arch = metanet.trace(Experts(), torch.randn(7, 4))
    stream = arch.spec.tensors["stem.weight"].axes[0]
    assert (stream.group, stream.size) == ("stem", 6)
    assert arch.spec.tensors["head.weight"].axes[1] == stream
    assert arch.spec.tensors["up"].axes[2] == stream
    assert arch.spec.tensors["down"].axes[1] == stream
    assert sorted(g.size for g in arch.spec.groups) == [
        5,
        5,
        6,
    ]  # hidden units of each matrix that is read


def test_explain_names_both_operations_that_cut_an_axis():
    model, inputs, _ = CONSTRUCTS["norms_of_different_groups"].make()
    spec = metanet.trace(model, *inputs).spec
    text = spec.explain("h.weight")
    assert "4 | 2 | 2 | 4: cut by" in text and "norm in n1" in text and "norm in n2" in text
    again = SymmetrySpec.from_json(spec.to_json())
    assert again == spec and again.explain("h.weight") == text
    plain, inputs, _ = CONSTRUCTS["dense"].make()
    assert "cut by" not in metanet.trace(plain, *inputs).spec.explain(
        "head.weight"
    )  # put together, not cut
