"""How many relabellings there are: the derived group against all permutations of a few channels,
tried one by one."""

from collections.abc import Callable
from itertools import permutations
from math import factorial, prod

import pytest
import torch
from torch import Tensor, nn

import metanet
from metanet.symmetry import SymmetrySpec, leaves_of
from symmetry.constructs import Net

CHANNELS = 6


def order(spec: SymmetrySpec, tensor: str) -> int:
    """Number of elements of the groups along the first axis of a tensor."""
    groups = {leaf.group for leaf in leaves_of(spec.tensors[tensor].axes[0])}
    return prod(factorial(spec[g].size) ** prod(spec[k].size for k in spec[g].keys) for g in groups)


def partitions(*cuts: tuple[int, int]) -> Net:
    """Six channels under several norms, each with a layer of its own behind it.

    Args:
        cuts: for each norm its groups, and how many other channels stand before the six.
    """

    def run(m: nn.Module, x: Tensor) -> Tensor:
        h = m.h(x)
        total = 0
        for n, (_, before) in enumerate(cuts):
            others = x[:, :1].expand(-1, before, -1, -1).sin()
            total = total + getattr(m, f"o{n}")(
                getattr(m, f"n{n}")(torch.cat([others, h], 1)).tanh()
            )
        return total

    parts: dict[str, nn.Module] = {"h": nn.Conv2d(3, CHANNELS, 1)}
    for n, (groups, before) in enumerate(cuts):
        parts[f"n{n}"] = nn.GroupNorm(groups, CHANNELS + before)
        parts[f"o{n}"] = nn.Conv2d(CHANNELS + before, 2, 1)
    return Net(run, **parts)


def kept(net: Net, x: Tensor) -> int:
    """How many permutations of the six channels keep the function, if all that has them follows."""
    state = {n: t.clone() for n, t in net.state_dict().items()}
    want = net(x)
    found = 0
    for p in permutations(range(CHANNELS)):
        net.load_state_dict({n: _followed(n, t, torch.tensor(p)) for n, t in state.items()})
        found += bool((net(x) - want).abs().max() < 1e-10 * want.std())
    net.load_state_dict(state)
    return found


def _followed(name: str, tensor: Tensor, p: Tensor) -> Tensor:
    """A tensor whose last six channels are permuted."""
    axis = 1 if name.startswith("o") and tensor.ndim > 1 else 0
    if name.startswith("o") and tensor.ndim == 1:
        return tensor
    before = tensor.shape[axis] - CHANNELS
    return tensor.index_select(axis, torch.cat([torch.arange(before), before + p]))


# Blocks of 2 against blocks of 3: the axis may be turned round as well, block by block, which no
# axis of a spec says.
MIRRORS = dict.fromkeys([((3, 0), (2, 0)), ((2, 0), (4, 2)), ((3, 0), (3, 3))], 2)


@pytest.mark.parametrize(
    "cuts",
    [
        ((3, 0),), ((2, 0),), ((3, 0), (2, 0)), ((3, 0), (2, 2)), ((2, 0), (4, 2)), ((3, 0), (3, 3)),
        ((2, 0), (2, 4)),
        ((3, 0), (2, 4), (2, 0)),
    ],
)  # fmt: skip
def test_the_derived_group_has_as_many_elements_as_permutations_keep_the_function(cuts):
    torch.manual_seed(0)
    net, x = partitions(*cuts).double().eval(), torch.randn(2, 3, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
        arch = metanet.trace(net, x)
        assert order(arch.spec, "h.weight") * MIRRORS.get(cuts, 1) == kept(net, x)


def _shuffled(x: Tensor, groups: int) -> Tensor:
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (lambda a, b: _shuffled(torch.cat([a, b], 1), 2), 720**2),
        (
            lambda a, b: _shuffled(torch.cat([_shuffled(torch.cat([a, b], 1), 2)[:, :6], b], 1), 2),
            36 * 36,
        ),
        (lambda a, b: torch.cat(_shuffled(torch.cat([a, b], 1), 2).chunk(2, 1)[::-1], 1), 36 * 36),
    ],
)
def test_each_part_of_a_shuffled_concatenation_has_permutations_of_its_own(
    between: Callable[[Tensor, Tensor], Tensor], expected: int
):
    """Two layers of six: all 720 permutations of either; where halves go separate ways, 6 of either
    half."""
    run = lambda m, x: m.o(between(m.a(x).tanh(), m.b(x).relu()))  # noqa: E731
    net = Net(run, a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(3, 6, 1), o=nn.Conv2d(12, 4, 1))
    spec = metanet.trace(net.eval(), torch.randn(2, 3, 4, 4)).spec
    assert order(spec, "a.weight") * order(spec, "b.weight") == expected
    assert metanet.verify(net, spec, torch.randn(2, 3, 4, 4)).ok
