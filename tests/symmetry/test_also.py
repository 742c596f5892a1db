"""What activations allow beyond permutations: laws against the real operations, networks by hand,
and by acting."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metanet.symmetry._charges import SCALE, SIGN, Balance, System, part, plus, power
from metanet.symmetry._leaves import Leaves
from metanet.symmetry._operation import LAWS, RULES, find_rule
from metanet.testing import Program
from networks import ARCHITECTURES
from symmetry.charges import change, find, law_error

A = torch.ops.aten
GENERATOR = torch.Generator().manual_seed(0)
TOLERANCE = 1e-10
BOTH, SIGNS, SCALES, NONE = {"sign", "scale"}, {"sign"}, {"scale"}, set()


def r(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def op(call, *rest, **options):
    """The operation with everything but its tensors fixed: ``rest`` follows the tensors."""
    return lambda *tensors: call(*tensors, *rest, **options)


def fused(x, w):
    """Rows for queries, keys and values in one weight."""
    q, k, v = (x @ w.mT).unflatten(-1, (3, 4, 5)).permute(2, 0, 3, 1, 4).unbind(0)
    return (q @ k.mT).softmax(-1) @ v


def chunked(x, w):
    gate, up = (x @ w.mT).chunk(2, -1)
    return F.silu(gate) * up


def written(x, w):
    """Added to zeros at places that depend on data."""
    return A.index_add(torch.zeros(4, 5, dtype=torch.float64), 0, torch.tensor([2, 0, 2]), x @ w.mT)


# name -> (function, tensors, kinds of charges that its parameters can have)
CASES = {
    # rearrangements
    "permute": (op(A.permute, [2, 0, 1]), [r(3, 4, 5)], BOTH),
    "squeeze": (op(A.squeeze.dim, 1), [r(3, 1, 4)], BOTH),
    "clone": (op(A.clone), [r(3, 4)], BOTH),
    "to integers": (op(A._to_copy, dtype=torch.int64), [r(3, 4)], NONE),
    "expand": (op(A.expand, [3, 4]), [r(3, 1)], BOTH),
    "repeat": (op(A.repeat, [1, 2]), [r(3, 4)], BOTH),
    "repeat_interleave": (op(A.repeat_interleave, 2, 1), [r(3, 4)], BOTH),
    "view joins": (op(A.view, [12, 5]), [r(3, 4, 5)], BOTH),
    "view splits": (op(A.view, [3, 4, 5]), [r(12, 5)], BOTH),
    "pixel_shuffle": (op(A.pixel_shuffle, 2), [r(2, 12, 3, 4)], BOTH),
    "channel_shuffle": (op(A.channel_shuffle, 2), [r(2, 6, 3)], BOTH),
    "unfold": (op(A.unfold, 1, 2, 1), [r(3, 4)], BOTH),
    "im2col": (op(A.im2col, [2, 2], [1, 1], [0, 0], [1, 1]), [r(2, 3, 4, 4)], BOTH),
    "flip": (op(A.flip, [1]), [r(3, 4)], BOTH),
    "cumsum": (op(A.cumsum, 1), [r(3, 4)], BOTH),
    "reflection_pad1d": (op(A.reflection_pad1d, [1, 1]), [r(2, 3, 4)], BOTH),
    "constant_pad_nd": (op(A.constant_pad_nd, [1, 1]), [r(3, 4)], BOTH),
    "constant_pad_nd with ones": (op(A.constant_pad_nd, [1, 1], 1.0), [r(3, 4)], NONE),
    "avg_pool2d": (op(A.avg_pool2d, [2, 2]), [r(2, 3, 4, 4)], BOTH),
    "upsample_bilinear2d": (op(A.upsample_bilinear2d, [6, 6], False), [r(2, 3, 4, 4)], BOTH),
    # stretches
    "slice": (op(A.slice, 1, 1, 3), [r(3, 5)], BOTH),
    "slice with a step": (op(A.slice, 1, 0, 6, 2), [r(3, 6)], BOTH),
    "select": (op(A.select, 1, 2), [r(3, 4, 5)], BOTH),
    "split": (lambda x, w: [p.tanh() for p in (x @ w.mT).split([2, 3, 2], -1)], [r(3, 4), r(7, 4)], BOTH),
    "cat": (lambda x, y: A.cat([x, y], 1), [r(3, 2), r(3, 4)], BOTH),
    "cat and take apart": (lambda x, y: torch.cat([x, y], 1)[:, 3:].relu(), [r(3, 3), r(3, 4)], SCALES),
    "stack": (lambda x, y: A.stack([x, y], 1), [r(3, 4), r(3, 4)], BOTH),
    "heads in one weight": (fused, [r(2, 3, 6), r(60, 6)], BOTH),
    "gate in one weight": (chunked, [r(3, 4), r(10, 4)], BOTH),
    # entry by entry
    "add": (op(A.add.Tensor), [r(3, 4), r(4)], BOTH),
    "add a number": (op(A.add.Tensor, 1.0), [r(3, 4)], NONE),
    "add a constant": (op(A.add.Tensor), [r(3, 4), torch.ones(4, dtype=torch.int64)], NONE),
    "add zeros": (op(A.add.Tensor), [r(3, 4), torch.zeros(4, dtype=torch.int64)], BOTH),
    "rsub": (op(A.rsub.Scalar, 1.0), [r(3, 4)], NONE),
    "mul": (op(A.mul.Tensor), [r(3, 4), r(3, 1)], BOTH),
    "mul with itself": (lambda x: x * x, [r(3, 4)], BOTH),
    "div": (op(A.div.Tensor), [r(3, 4), r(4)], BOTH),
    "floor of a quotient": (op(A.div.Tensor_mode, rounding_mode="floor"), [r(3, 4), r(4)], NONE),
    "where": (lambda x, y, z: A.where(x > 0, y, z), [r(3, 4), r(3, 4), r(3, 4)], BOTH),
    "where against one": (lambda x, y: A.where(x > 1, y, y * 2), [r(3, 4), r(3, 4)], BOTH),
    "masked_fill": (op(A.masked_fill, torch.tensor([[True], [False], [True]]), 0.0), [r(3, 4)], BOTH),
    "masked_fill with ones": (op(A.masked_fill, torch.tensor([[True], [False], [True]]), 1.0),
                              [r(3, 4)], NONE),
    "maximum": (op(A.maximum), [r(3, 4), r(3, 4)], SCALES),
    "lerp": (op(A.lerp.Scalar, 0.3), [r(3, 4), r(3, 4)], BOTH),
    "neg": (op(A.neg), [r(3, 4)], BOTH),
    "tanh": (op(A.tanh), [r(3, 4)], SIGNS),
    "sin": (op(A.sin), [r(3, 4)], SIGNS),
    "erf": (op(A.erf), [r(3, 4)], SIGNS),
    "softshrink": (op(A.softshrink, 0.3), [r(3, 4)], SIGNS),
    "softsign": (F.softsign, [r(3, 4)], SIGNS),
    "relu": (op(A.relu), [r(3, 4)], SCALES),
    "leaky_relu": (op(A.leaky_relu, 0.2), [r(3, 4)], SCALES),
    "prelu": (op(A._prelu_kernel), [r(2, 3, 4), r(1, 3, 1)], SCALES),
    "hardtanh": (op(A.hardtanh, -0.5, 0.5), [r(3, 4)], SIGNS),
    "relu6": (op(A.hardtanh, 0.0, 6.0), [r(3, 4)], NONE),
    "clamp_min": (op(A.clamp_min, 0.0), [r(3, 4)], SCALES),
    "clamp_min of one": (op(A.clamp_min, 1.0), [r(3, 4)], NONE),
    "cos": (op(A.cos), [r(3, 4)], SIGNS),
    "abs": (op(A.abs), [r(3, 4)], BOTH),
    "sign": (op(A.sign), [r(3, 4)], BOTH),
    "greater": (op(A.gt.Scalar, 0), [r(3, 4)], SCALES),
    "greater than one": (op(A.gt.Scalar, 1), [r(3, 4)], NONE),
    "not zero": (op(A.ne.Scalar, 0), [r(3, 4)], BOTH),
    "square": (op(A.square), [r(3, 4)], BOTH),
    "pow 3": (op(A.pow.Tensor_Scalar, 3), [r(3, 4)], BOTH),
    "pow by a tensor": (lambda x, y: A.pow(x.abs(), y), [r(3, 4), r(3, 4)], SIGNS),
    "sqrt": (lambda x: A.sqrt(x.square()), [r(3, 4)], BOTH),
    "rsqrt of a sum": (lambda x: A.rsqrt(x.square() + 1e-3), [r(3, 4)], SIGNS),
    "reciprocal": (op(A.reciprocal), [r(3, 4)], BOTH),
    "gelu": (op(A.gelu), [r(3, 4)], NONE),
    "silu": (op(A.silu), [r(3, 4)], NONE),
    "exp": (op(A.exp), [r(3, 4)], NONE),
    # sums
    "sum": (op(A.sum.dim_IntList, [1]), [r(3, 4)], BOTH),
    "mean of all": (op(A.mean), [r(3, 4)], NONE),
    "amax": (op(A.amax, [1]), [r(3, 4)], SCALES),
    "max": (op(A.max.dim, 1), [r(3, 4)], SCALES),
    "max_pool2d": (op(A.max_pool2d_with_indices, [2, 2]), [r(2, 3, 4, 4)], SCALES),
    "var": (op(A.var.correction, [1]), [r(3, 4)], BOTH),
    "std": (op(A.std.correction, [1]), [r(3, 4)], BOTH),
    "norm": (op(A.linalg_vector_norm, 2, [1]), [r(3, 4)], BOTH),
    "norm of all": (op(A.linalg_vector_norm, 2), [r(3, 4)], SIGNS),
    "softmax": (op(A._softmax, 1, False), [r(3, 4)], NONE),
    "glu": (op(A.glu, 1), [r(3, 8)], BOTH),
    "mm": (op(A.mm), [r(3, 4), r(4, 5)], BOTH),
    "bmm with itself": (lambda x: A.bmm(x, x.mT), [r(2, 3, 4)], BOTH),
    "addmm": (op(A.addmm), [r(5), r(3, 4), r(4, 5)], BOTH),
    "addmm to a column": (op(A.addmm), [r(3, 1), r(3, 4), r(4, 5)], BOTH),
    "baddbmm": (op(A.baddbmm), [r(2, 3, 5), r(2, 3, 4), r(2, 4, 5)], BOTH),
    "mv": (op(A.mv), [r(3, 4), r(4)], BOTH),
    "dot": (op(A.dot), [r(4), r(4)], BOTH),
    "a weight for both sides": (lambda x, w: x @ w @ w, [r(3, 4), r(4, 4)], BOTH),
    "convolution": (op(F.conv2d, padding=1), [r(2, 3, 5, 5), r(4, 3, 3, 3), r(4)], BOTH),
    "convolution in groups": (op(F.conv1d, groups=2), [r(2, 6, 5), r(8, 3, 2), r(8)], BOTH),
    "depthwise convolution": (op(F.conv1d, groups=4), [r(2, 4, 5), r(4, 1, 2), r(4)], BOTH),
    "transposed convolution": (op(F.conv_transpose1d), [r(2, 3, 5), r(3, 4, 2), r(4)], BOTH),
    "transposed in groups": (op(F.conv_transpose1d, groups=2), [r(2, 6, 5), r(6, 4, 2), r(8)], BOTH),
    "batch_norm": (lambda x, w, b, m, v: F.batch_norm(x, m, v.abs(), w, b), [r(5, 3), *r(4, 3)], BOTH),
    "batch_norm alone": (lambda x, m, v: F.batch_norm(x, m, v.abs() + 1), [r(5, 3), r(3), r(3)], SIGNS),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, None, None, w, b), [r(1, 3, 5), r(3), r(3)], BOTH),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [r(3, 4), r(4), r(4)], BOTH),
    "layer_norm alone": (lambda x: F.layer_norm(x, (4,)), [r(3, 4)], NONE),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [r(2, 6, 5), r(6), r(6)], BOTH),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w, 1e-3), [r(3, 4), r(4)], BOTH),
    "weight_norm": (op(A._weight_norm_interface, 0), [r(3, 4), r(3, 1)], BOTH),
    "embedding": (op(A.embedding, torch.tensor([0, 2, 1])), [r(4, 5)], BOTH),
    "index": (lambda w: A.index(w, [torch.tensor([0, 2, 1])]), [r(4, 5)], BOTH),
    "index a run": (lambda w: A.index(w, [None, torch.tensor([1, 2])]), [r(4, 5)], BOTH),
    "index_select": (op(A.index_select, 0, torch.tensor([0, 2])), [r(4, 5)], BOTH),
    "gather": (lambda x: A.gather(x, 0, torch.tensor([[1], [0]]).expand(2, 4)), [r(3, 4)], BOTH),
    "index_add": (written, [r(3, 4), r(5, 4)], BOTH),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_law_is_what_the_operation_does(name):
    function, tensors, kinds = CASES[name]
    for seed in range(3):
        error, found = law_error(function, tensors, seed)
        assert error < TOLERANCE
        assert found == kinds


def test_every_law_is_of_an_operation_with_a_rule():
    for name in LAWS:
        packet = getattr(A, name.removeprefix("aten."))
        calls = [getattr(packet, overload) for overload in packet.overloads()]
        assert name in RULES or any(find_rule(name, call) is not None for call in calls), name


# ---------------------------------------------------------------- networks, by hand


class Norm(nn.Module):
    """Root mean square normalisation, in single operations."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * self.weight


class Block(nn.Module):
    """A transformer block with attention over two heads of three dims."""

    def __init__(self, dim: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.q, self.k, self.v, self.o = (
            nn.Linear(a, b) for a, b in ((dim, 6), (dim, 6), (dim, 6), (6, dim))
        )
        self.gate, self.up, self.down = nn.Linear(dim, 7), nn.Linear(dim, 7), nn.Linear(7, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (2, 3)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = (q @ k.mT / 3**0.5).softmax(-1) @ v
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def transformer(norm: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), Block(8, norm), Block(8, norm), norm(8), nn.Linear(8, 3))


class PreNormed(nn.Module):
    """A residual block that reads its stream through a batch norm alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm, self.last = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.conv(self.norm(x).relu())
        return self.head(self.last(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(3, 5, batch_first=True), nn.GRU(5, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0][:, -1])


class Side(nn.Module):
    """Two layers side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 5), nn.Linear(4, 6), nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.a(x).relu(), self.b(x).tanh()], -1))


def one(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3))


# name -> (network, example, what is expected of each group, named by its first layer)
NETWORKS = {
    "relu": (lambda: one(nn.ReLU()), r(5, 4), {"0": SCALES}),
    "leaky_relu": (lambda: one(nn.LeakyReLU()), r(5, 4), {"0": SCALES}),
    "tanh": (lambda: one(nn.Tanh()), r(5, 4), {"0": SIGNS}),
    "softsign": (lambda: one(nn.Softsign()), r(5, 4), {"0": SIGNS}),
    "linear": (lambda: one(nn.Identity()), r(5, 4), {"0": BOTH}),
    "gelu": (lambda: one(nn.GELU()), r(5, 4), {"0": NONE}),
    "silu": (lambda: one(nn.SiLU()), r(5, 4), {"0": NONE}),
    "relu6": (lambda: one(nn.ReLU6()), r(5, 4), {"0": NONE}),
    "batch norm and relu": (lambda: one(nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())), r(5, 4), {"0": SCALES}),
    "batch norm and gelu": (lambda: one(nn.Sequential(nn.BatchNorm1d(6), nn.GELU())), r(5, 4), {"0": NONE}),
    "layer norm and relu": (lambda: one(nn.Sequential(nn.LayerNorm(6), nn.ReLU())), r(5, 4), {"0": SCALES}),
    "stream read through batch norms": (PreNormed, r(5, 4), {"stem": SIGNS}),
    "weight norm and relu": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.ReLU(),
            nn.Linear(6, 3)),
        r(5, 4), {"0": SCALES},
    ),
    "resnet": (*ARCHITECTURES["resnet"][:1], ARCHITECTURES["resnet"][1](), {
        "0": SCALES, "3.conv1": SCALES, "3.conv2": SCALES,
    }),
    "side by side": (Side, r(5, 4), {"a": SCALES, "b": SIGNS}),
    "recurrent": (Recurrent, r(2, 4, 3), {"lstm": SIGNS, "gru": SIGNS}),
}  # fmt: skip


def kinds_of(found) -> dict[str, set[str]]:
    """What was found, by the name of the layer."""
    out: dict[str, set[str]] = {}
    for name, kinds in found.by_name.items():
        layer = name.split("#")[0].removesuffix(".parametrizations.weight")
        out[layer] = out.get(layer, set()) | kinds
    return out


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_by_hand(name):
    make, x, kinds = NETWORKS[name]
    assert kinds_of(find(make(), x.float())) == kinds


@pytest.mark.parametrize(("norm", "stream"), [(nn.LayerNorm, NONE), (Norm, SIGNS)])
def test_transformer_by_hand(norm, stream):
    """Heads are left to their dims; dims of queries and values and gated units are free; the stream
    is as its norm."""
    found = find(transformer(norm), r(2, 5, 4).float())
    sizes = {found.names[leaf]: found.leaves.size((leaf,)) for leaf in found.keys}
    by_size: dict[int, list[set[str]]] = {}
    for name, kinds in found.by_name.items():
        by_size.setdefault(sizes[name], []).append(kinds)
    assert by_size == {8: [stream], 7: [BOTH] * 2, 3: [BOTH] * 4, 2: [NONE] * 2}


# ---------------------------------------------------------------- networks, by acting


def acting(model: nn.Module, x: Tensor) -> list[float]:
    found = find(model, x)
    return [
        change(found, model, leaf, kind, x)
        for leaf, kinds in found.also.found.items()
        for kind in kinds
    ]


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "normed"])
def test_factors_keep_the_function(name):
    make, example = ARCHITECTURES[name]
    changes = acting(make(), example())
    assert changes
    assert max(changes) < TOLERANCE


@pytest.mark.parametrize(
    "name", [n for n, (_, _, kinds) in NETWORKS.items() if any(kinds.values())]
)
def test_factors_keep_the_function_of_networks_by_hand(name):
    make, x, _ = NETWORKS[name]
    assert max(acting(make(), x.float())) < TOLERANCE


@pytest.mark.parametrize("norm", [nn.LayerNorm, Norm])
def test_factors_keep_the_function_of_transformers(norm):
    assert max(acting(transformer(norm), r(2, 5, 4).float())) < TOLERANCE


def test_factors_keep_the_function_of_random_programs():
    count = 0
    for seed in range(60):
        program = Program(seed)
        changes = acting(program, program.example)
        assert max(changes, default=0.0) < TOLERANCE, f"Program({seed}): {', '.join(program.kinds)}"
        count += len(changes)
    assert count > 50


def test_wrong_factors_are_noticed():
    """The twin: signs where only scales are free change the output."""
    model, x = one(nn.ReLU()), r(5, 4).float()
    found = find(model, x)
    (leaf,) = found.also.found
    assert change(found, model, leaf, "scale", x) < TOLERANCE
    signed = find(one(nn.Identity()), x)
    (other,) = signed.also.found
    assert change(signed, model, other, "sign", x) > 1e-3


def test_charges_say_which_powers():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    found = find(model, r(5, 4).float())
    (leaf,) = found.also.found
    charges = found.also.charges(leaf, "scale")
    got = {
        n: [o.form.get(0, 0) for axis in axes for o in axis if o.form is not None]
        for n, axes in charges.items()
    }
    q = got["0.weight"][0]
    assert q
    assert got == {"0.weight": [q], "0.bias": [q], "2.weight": [-q], "2.bias": []}


# ---------------------------------------------------------------- algebra


def test_forms():
    a, b = {0: 1, 1: 1}, {0: 1, 1: 2, 3: 1}
    assert plus(a, b) == {1: 3, 3: 1}
    assert plus(a, b, -1) == {1: -1, 3: -1}
    assert part(b, SIGN) == {0: 1}
    assert part(b, SCALE) == {1: 2, 3: 1}
    assert power(b, 2) == {1: 4, 3: 2}
    assert power(b, 3) == {0: 1, 1: 6, 3: 3}


def test_equations_are_solved_whatever_their_order():
    system = System()
    a, b, c = (system.fresh(0) for _ in range(3))
    for form in (plus(c, b, -1), plus(b, a, -2)):
        system.vanish(form)
    assert system.reduced(c) == {1: 2}  # twice a: no sign
    system.vanish(plus(c, a, -1))
    assert not system.reduced(a)
    assert not system.reduced(c)


def test_axes_that_differ_have_no_charges():
    leaves = Leaves()
    one_axis, other = leaves.new(3), leaves.new(4)
    balance = Balance(leaves, frozenset(one_axis + other))
    a, b = balance.unknown(one_axis), balance.unknown(other)
    assert balance.sum(a, b) == ()
    assert not any(
        balance.system.reduced(form) for axis in (a, b) for _, form in balance.forms(axis)
    )
