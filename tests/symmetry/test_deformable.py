"""Deformable convolutions: which channels move together, and the parameter graph."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import metanet
from metanet.testing import assert_function_preserved
from symmetry.deformable import LIBRARY, deform_conv2d, plain


class Deformed(nn.Module):
    """A convolution makes channels, others from the same image say where they are read."""

    def __init__(self, groups: int, offset_groups: int) -> None:
        super().__init__()
        self.options = (1, 1, 1, 1, 1, 1, groups, offset_groups, True)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.offset = nn.Conv2d(3, offset_groups * 18, 3, padding=1)
        self.mask = nn.Conv2d(3, offset_groups * 9, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 8 // groups, 3, 3) / 5)
        self.bias = nn.Parameter(torch.randn(6))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.offset(x).tanh(), self.mask(x).sigmoid()
        return self.head(
            deform_conv2d(
                self.stem(x).relu(), self.weight, offset, mask, self.bias, *self.options
            ).tanh()
        )


@pytest.mark.parametrize(
    ("groups", "offset_groups", "stem", "offset"),
    [
        (1, 1, [(8, ())], []),  # no offset may move
        (1, 2, [(2, ()), (4, (2,))], [2]),  # offset groups as wholes, channels inside theirs
        (2, 1, [(2, ()), (4, (2,))], []),
        (2, 4, [(2, ()), (2, (2,)), (2, (2, 2))], [2, 2]),  # two offset groups in each group
    ],
)
def test_channels_move_within_what_reads_them(groups, offset_groups, stem, offset):
    torch.manual_seed(0)
    net, x = Deformed(groups, offset_groups), torch.randn(2, 3, 6, 6)
    arch = metanet.trace(net, x)
    spec = arch.spec

    def found(tensor: str) -> list[tuple[int, tuple[int, ...]]]:
        axis = spec.tensors[tensor].axes[0]
        return [
            (x.size, tuple(spec[k].size for k in spec[x.group].keys))
            for x in metanet.symmetry.leaves_of(axis)
        ]

    assert found("stem.weight") == stem
    assert (
        [size for size, _ in found("offset.weight")]
        == offset
        == [size for size, _ in found("mask.weight")]
    )
    assert found("weight")[-1][0] == 6 // groups
    assert not arch.warnings
    assert_function_preserved(net, x)
    graph, state = metanet.to_graph(net, arch), net.state_dict()
    back = metanet.from_graph(graph, arch)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_without_offsets_it_is_a_convolution():
    """The plain form against PyTorch's convolution, and against the real operation where it is
    there."""
    x, weight, bias = torch.randn(2, 4, 6, 7), torch.randn(6, 2, 3, 2), torch.randn(6)
    offset, mask = torch.zeros(2, 24, 2, 8), torch.ones(2, 12, 2, 8)
    options = (2, 1, 1, 2, 2, 3, 2, 2, True)
    want = F.conv2d(x, weight, bias, stride=(2, 1), padding=(1, 2), dilation=(2, 3), groups=2)
    torch.testing.assert_close(
        plain(x, weight, offset, mask, bias, *options), want, rtol=1e-4, atol=1e-4
    )
    shift = torch.rand_like(offset)
    assert not torch.allclose(plain(x, weight, shift, mask, bias, *options), want, atol=0.1)
    if LIBRARY is None:
        torch.testing.assert_close(
            plain(x, weight, shift, mask, bias, *options),
            deform_conv2d(x, weight, shift, mask, bias, *options),
        )
