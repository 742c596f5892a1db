"""Every rule against the real operation: relabel the inputs as the rules allow, the outputs must
follow."""

import inspect

import pytest
import torch
from torch import Tensor

from metanet.errors import MetanetError
from metanet.symmetry import rule
from metanet.symmetry._operation import RULES, find_rule
from symmetry.deformable import deform_conv2d
from symmetry.programs import differences, movable, solve

A = torch.ops.aten


def r(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


def c(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex128, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(0)
I = torch.tensor  # noqa: E741


def op(call, *rest, **options):
    """The operation with everything but its tensors fixed: ``rest`` follows the tensors."""
    return lambda *tensors: call(*tensors, *rest, **options)


def one_hot_by_topk(x, w):
    scores, chosen = A.topk(x, 2, 1)
    return A.scatter(A.zeros_like(x), 1, chosen, scores) @ w


def experts(router, up, down, bias, x):
    chosen = A.argmax(x @ router, -1)  # one expert for each token, with hidden units of its own
    hidden = A.bmm(A.index(up, [chosen]), x[..., None]).relu()
    return A.bmm(A.index(down, [chosen]), hidden)[..., 0] + bias


# name -> (function, tensors); floating-point tensors are parameters, which may move
CASES = {
    "add": (op(A.add.Tensor), r(3, 4), r(3, 4)),
    "mul": (op(A.mul.Tensor), r(2, 3, 4), r(3, 1)),
    "sub": (op(A.sub.Tensor), r(4), r(2, 3, 1)),
    "gelu": (op(A.gelu), r(3, 4)),
    "hardswish": (op(A.hardswish), r(3, 4)),
    "where": (lambda x, y: A.where(x > 0, x, y), r(3, 4), r(4)),
    "clone": (op(A.clone), r(3, 4)),
    "to_copy": (op(A._to_copy, dtype=torch.float32), r(3, 4)),
    "view joins": (op(A.view, [6, 4]), r(2, 3, 4)),
    "view splits": (op(A.view, [2, 3, 4]), r(6, 4)),
    "view keeps": (op(A.view, [2, 12]), r(2, 3, 1, 4)),
    "view without common boundary": (op(A.view, [6, 4]), r(4, 6)),
    "unsafe_view": (op(A._unsafe_view, [2, 2, 6]), r(4, 6)),
    "permute": (op(A.permute, [2, 0, 1]), r(2, 3, 4)),
    "t": (op(A.t), r(3, 4)),
    "transpose": (op(A.transpose, -1, 0), r(2, 3, 4)),
    "unsqueeze": (op(A.unsqueeze, -1), r(3, 4)),
    "squeeze": (op(A.squeeze.dim, 1), r(3, 1, 4)),
    "squeeze all": (op(A.squeeze), r(3, 1, 4)),
    "expand": (op(A.expand, [2, 3, 4]), r(3, 1)),
    "diagonal": (op(A.diagonal, 0, 0, 2), r(4, 3, 4)),
    "diagonal beside the main one": (op(A.diagonal, 1, 0, 2), r(4, 3, 4)),
    "repeat": (op(A.repeat, [2, 3]), r(3, 4)),
    "repeat_interleave": (op(A.repeat_interleave, 2, 1), r(3, 4)),
    "pixel_shuffle": (op(A.pixel_shuffle, 2), r(2, 12, 3, 4)),
    "pixel_unshuffle": (op(A.pixel_unshuffle, 2), r(2, 3, 4, 6)),
    "channel_shuffle": (op(A.channel_shuffle, 2), r(2, 6, 3)),
    "view_as_complex": (lambda x: A.view_as_real(A.view_as_complex(x)), r(3, 4, 2)),
    "full slice": (op(A.slice, 1, 0, 2**63 - 1), r(3, 5)),
    "slice": (op(A.slice, 1, 1, 3), r(3, 5)),
    "slice with a step": (op(A.slice, 1, 1, 2**63 - 1, 2), r(3, 6)),
    "slice with a step that leaves a rest": (op(A.slice, 1, 0, 2**63 - 1, 2), r(3, 5)),
    "select": (op(A.select, 1, 2), r(3, 4, 5)),
    "unbind": (op(A.unbind, 1), r(3, 4, 5)),
    "split": (op(A.split, 2, 1), r(3, 5)),
    "split_with_sizes": (op(A.split_with_sizes, [1, 3, 2], -1), r(3, 6)),
    "cat": (lambda x, y: A.cat([x, y], 1), r(3, 2), r(3, 4)),
    "stack": (lambda x, y: A.stack([x, y], 1), r(3, 4), r(3, 4)),
    "stack and take apart": (lambda x, y: A.stack([x, y], 1).unbind(1), r(3, 4), r(3, 4)),
    "stack of three, of which two": (
        lambda x, y, z: A.stack([x, y, z])[1:].select(0, 0), r(3, 4), r(3, 4), r(3, 4)),
    "stack and reduce": (lambda x, y: A.stack([x, y], -1).sum(-1), r(3, 4), r(3, 4)),
    "stack and join": (lambda x, y, w: A.stack([x, y], 1).flatten(1) @ w, r(3, 4), r(3, 4), r(8, 2)),
    "stack and interleave": (lambda x, y, w: A.stack([x, y], 2).flatten(1) @ w, r(3, 4), r(3, 4), r(8, 2)),
    "stack and scale": (lambda x, y, w: A.stack([x, y]) * w, r(3, 4), r(3, 4), r(2, 1, 4)),
    "stack and multiply": (lambda x, y, w: A.stack([x, y]) @ w, r(3, 4), r(3, 4), r(2, 4, 5)),
    "stack and multiply by one": (lambda x, y, w: A.stack([x, y]) @ w, r(3, 4), r(3, 4), r(4, 5)),
    "stack with itself": (lambda x, y: A.stack([x, y]) @ A.stack([x, y]).mT, r(3, 4), r(3, 4)),
    "stack of stacks": (lambda x, y: A.stack([A.stack([x, y]), A.stack([y, x])], 1).flatten(0, 1),
                        r(3, 4), r(3, 4)),
    "constant_pad_nd": (op(A.constant_pad_nd, [1, 2, 0, 1]), r(2, 3, 4)),
    "reflection_pad2d": (op(A.reflection_pad2d, [1, 1, 0, 1]), r(2, 3, 4, 4)),
    "slice_scatter": (op(A.slice_scatter, 1, 1, 3), r(3, 5), r(3, 2)),
    "select_scatter": (op(A.select_scatter, 1, 2), r(3, 4), r(3)),
    "flip": (op(A.flip, [1]), r(3, 4)),
    "roll": (op(A.roll, [1], [1]), r(3, 4)),
    "cumsum": (op(A.cumsum, 1), r(3, 4)),
    "mm": (op(A.mm), r(3, 4), r(4, 5)),
    "mm with itself": (lambda x: A.mm(x, A.t(x)), r(3, 4)),
    "bmm": (op(A.bmm), r(2, 3, 4), r(2, 4, 5)),
    "addmm": (op(A.addmm), r(5), r(3, 4), r(4, 5)),
    "addmm with a column": (op(A.addmm), r(3, 1), r(3, 4), r(4, 5)),
    "baddbmm": (op(A.baddbmm), r(2, 3, 5), r(2, 3, 4), r(2, 4, 5)),
    "mv": (op(A.mv), r(3, 4), r(4)),
    "dot": (op(A.dot), r(4), r(4)),
    "linear": (op(A.linear), r(2, 3), r(4, 3), r(4)),
    "matrix exponential": (op(A.linalg_matrix_exp), r(2, 3, 3)),
    "trilinear": (op(A._trilinear, [1, 3], [0], [1, 2], [2, 3]), r(2, 3), r(4, 3, 5), r(2, 5)),
    "cdist": (op(A._cdist_forward, 2.0, None), r(2, 3, 4), r(2, 5, 4)),
    "solve_triangular": (op(A.linalg_solve_triangular, upper=True),
                         torch.eye(3).double() + r(3, 3).triu(), r(3, 4)),
    "convolution": (op(A.convolution, [2, 2], [1, 1], [1, 1], False, [0, 0], 1), r(2, 3, 6, 6),
                    r(4, 3, 3, 3), r(4)),
    "grouped convolution": (op(A.convolution, None, [1], [0], [1], False, [0], 2), r(2, 6, 5), r(4, 3, 2)),
    "depthwise convolution": (
        op(A.convolution, [1, 1], [0, 0], [1, 1], False, [0, 0], 6), r(2, 6, 5, 5), r(6, 1, 3, 3), r(6)),
    "transposed convolution": (
        op(A.convolution, [2, 2], [0, 0], [1, 1], True, [0, 0], 2), r(2, 6, 4, 4), r(6, 2, 2, 2), r(4)),
    "deformable convolution": (
        op(deform_conv2d, 1, 1, 1, 1, 1, 1, 1, 1, True), r(2, 6, 5, 5), r(4, 6, 3, 3), r(2, 18, 5, 5),
        r(2, 9, 5, 5), r(4)),
    "deformable convolution in groups": (
        op(deform_conv2d, 2, 1, 0, 1, 1, 1, 2, 4, True), r(2, 8, 5, 5), r(6, 4, 2, 2), r(2, 32, 2, 6),
        r(2, 16, 2, 6), r(6)),
    "deformable convolution with more groups than offset groups": (
        op(deform_conv2d, 1, 1, 0, 0, 1, 1, 4, 2, False), r(2, 8, 5, 5), r(4, 2, 2, 2), r(2, 16, 4, 4),
        r(2, 1), r(4)),
    "native_batch_norm": (
        lambda x, w, b, m, v: A.native_batch_norm(x, w, b, m, v.abs(), False, 0.1, 1e-5)[0],
        r(2, 3, 4), r(3), r(3), r(3), r(3)),
    "native_layer_norm": (
        lambda x, w, b: A.native_layer_norm(x, [3, 4], w, b, 1e-5)[0], r(2, 3, 4), r(3, 4), r(3, 4)),
    "native_group_norm": (
        lambda x, w, b: A.native_group_norm(x, w, b, 2, 6, 4, 2, 1e-5)[0], r(2, 6, 4), r(6), r(6)),
    "rms_norm": (lambda x, w: A._fused_rms_norm(x, [4], w, 1e-5)[0], r(2, 3, 4), r(4)),
    "weight_norm": (lambda v, g: A._weight_norm_interface(v, g, 0)[0], r(3, 4), r(3, 1)),
    "max_pool2d": (lambda x: A.max_pool2d_with_indices(x, [2, 2], [2, 2])[0], r(2, 3, 4, 4)),
    "avg_pool2d": (op(A.avg_pool2d, [2, 2], [2, 2]), r(2, 3, 4, 4)),
    "avg_pool1d": (op(A.avg_pool1d, [2], [2]), r(2, 3, 4)),
    "adaptive_avg_pool2d": (op(A._adaptive_avg_pool2d, [1, 2]), r(2, 3, 4, 4)),
    "upsample": (op(A.upsample_bilinear2d, [6, 8], False), r(2, 3, 4, 4)),
    "upsample_nearest": (op(A.upsample_nearest2d, [6, 8]), r(2, 3, 4, 4)),
    "dropout": (lambda x: A.native_dropout(x, 0.0, False)[0], r(3, 4)),
    "grid_sampler": (op(A.grid_sampler_2d, 0, 0, False), r(2, 3, 4, 4), r(2, 3, 5, 2)),
    "unfold": (op(A.unfold, 1, 2, 1), r(3, 4, 5)),
    "as_strided": (op(A.as_strided, [3, 4, 1, 1], [4, 1, 4, 4]), r(3, 4, 1, 1)),
    "as_strided with windows": (op(A.as_strided, [3, 3, 2], [4, 1, 1]), r(3, 4)),
    "as_strided across rows": (op(A.as_strided, [4, 3], [1, 4]), r(3, 4)),
    "as_strided diagonal": (op(A.as_strided, [3], [5]), r(3, 4)),
    "im2col": (op(A.im2col, [2, 2], [1, 1], [0, 0], [1, 1]), r(2, 3, 4, 4)),
    "col2im": (op(A.col2im, [4, 4], [2, 2], [1, 1], [0, 0], [2, 2]), r(2, 12, 4)),
    "fft": (lambda x: A.view_as_real(A._fft_r2c(x, [1], 0, True)), r(3, 4, 5)),
    "fft and back": (lambda x: A._fft_c2r(A._fft_c2c(x, [1, 2], 0, True), [2], 0, 6), c(3, 4, 4)),
    "view_as_real": (op(A.view_as_real), c(3, 4)),
    "two as one complex number": (op(A.view.dtype, torch.complex128), r(3, 6)),
    "one complex number as two": (op(A.view.dtype, torch.float64), c(3, 4)),
    "bits of the same size": (lambda x: A.view.dtype(x, torch.int64).double(), r(3, 4)),
    "mm of complex numbers": (op(A.mm), c(3, 4), c(4, 5)),
    "mm with the conjugate": (lambda x: x @ x.mH, c(3, 4)),
    "mm with a part of the conjugate": (lambda x, y: x.conj().imag @ y, c(3, 4), r(4, 5)),
    "vdot": (op(A.vdot), c(4), c(4)),
    "complex": (op(A.complex), r(3, 4), r(4)),
    "polar": (op(A.polar), r(3, 1), r(3, 4)),
    "abs and angle": (lambda x, y: A.abs(x) + A.angle(y), c(3, 4), c(3, 4)),
    "negated on reading": (lambda x, y: x.conj().imag * y, c(3, 4), r(4)),
    "unfold_backward": (op(A.unfold_backward, [3, 6], 1, 2, 2), r(3, 3, 2)),
    "mean": (op(A.mean.dim, [-1]), r(2, 3, 4)),
    "sum of axes": (op(A.sum.dim_IntList, [0, 2], True), r(2, 3, 4)),
    "var_mean": (op(A.var_mean.correction, [1]), r(2, 3, 4)),
    "max": (lambda x: A.max(x, 1)[0], r(2, 3, 4)),
    "vector_norm": (op(A.linalg_vector_norm, 2, [1], True), r(2, 3, 4)),
    "softmax": (op(A._softmax, -1, False), r(3, 4)),
    "glu": (op(A.glu, 1), r(3, 8)),
    "mse_loss": (op(A.mse_loss), r(3, 4), r(3, 4)),
    "tril": (op(A.tril), r(2, 3, 4)),
    "embedding": (op(A.embedding, I([[0, 2], [1, 1]])), r(5, 3)),
    "embedding_bag": (lambda x, i, o, w: A._embedding_bag(x, i, o, False, 0, False, w)[0],
                      r(5, 3), I([0, 2, 1, 1]), I([0, 3]), r(4)),
    "index": (lambda x, i: A.index(x, [None, i]), r(3, 4, 5), I([0, 3, 1])),
    "index of a run": (lambda x, i: A.index(x, [None, i]), r(3, 4, 5), I([1, 2])),
    "index by a mask": (lambda x, m: A.index(x, [m]), r(3, 4, 5), I([True, False, True])),
    "index with two": (lambda x, i: A.index(x, [i, None, i]), r(3, 4, 5), I([0, 2])),
    "index_select": (op(A.index_select, 1, I([2, 0])), r(3, 4, 5)),
    "gather": (lambda x, i: A.gather(x, 1, i), r(3, 4), I([[0, 3], [0, 3], [0, 3]])),
    "gather what topk chose": (lambda x, y: A.gather(y, 1, A.topk(x, 2, 1)[1]), r(3, 4), r(3, 4)),
    "scatter what topk chose": (one_hot_by_topk, r(3, 4), r(4, 5)),
    "experts": (experts, r(6, 4), r(4, 5, 6), r(4, 7, 5), r(7), r(3, 6)),
    "one_hot": (lambda x, w: A.one_hot(A.argmax(x, 1), 4).double() @ w, r(3, 4), r(4, 5)),
    "sort": (lambda x: A.sort(x, 1)[0], r(3, 4)),
    "index_add": (lambda x, y, i: A.index_add(x, 1, i, y), r(3, 4), r(3, 2), I([1, 3])),
    "index_put": (lambda x, y, i: A.index_put(x, [i], y), r(4, 5), r(2, 5), I([1, 3])),
    "bucketize": (lambda x: A.bucketize(x, I([-1.0, 0.0, 1.0]).double()).double(), r(3, 4)),
    "masked_select": (lambda x: A.masked_select(x, x > 0), r(3, 4)),
    "masked_scatter": (
        lambda x, m, y: A.masked_scatter(x, m[:, None].expand(3, 4), y), r(3, 4),
        I([True, False, True]), r(2, 4)),
    # constructs that need several rules together
    "fused qkv, q k v outermost": (
        lambda w: [x @ x.mT for x in (w.view(3, 2, 4, 5).unbind(0))], r(24, 5)),
    "fused qkv, chunked": (lambda w, o: [x.view(2, 4, 5) for x in w.chunk(3, 0)], r(24, 5), r(5, 8)),
    "shared by all heads": (lambda x, w: x.view(3, 4) * w, r(12), r(4)),
    "grouped queries": (
        lambda q, k: q.view(4, 3, 5) @ k.view(2, 1, 3, 5).expand(2, 2, 3, 5).reshape(4, 3, 5).mT,
        r(12, 5), r(6, 5)),
    "zeros written in stretches": (
        lambda x, y: A.slice_scatter(
            A.slice_scatter(A.zeros_like(torch.cat([x, y], 1)), x, 1, 0, 2), y, 1, 2, 5),
        r(3, 2), r(3, 3)),
}  # fmt: skip
PINNED = {"view without common boundary", "masked_select", "as_strided diagonal"}


@pytest.mark.parametrize("name", CASES)
def test_the_rules_hold_for_the_real_operation(name):
    function, *tensors = CASES[name]
    spec, outs, _ = solve(function, tensors)
    for seed in range(5):
        t = spec.sample(torch.Generator().manual_seed(seed))
        assert differences(function, tensors, spec, outs, t) < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_rule_is_not_vacuous(name):
    """Something moves, except where the operation truly pins everything."""
    function, *tensors = CASES[name]
    assert movable(solve(function, tensors)[0]) or name in PINNED


def test_every_rule_has_a_case():
    covered = set()
    for function, *tensors in CASES.values():
        covered |= {find_rule(o.name, o.call) for o in solve(function, tensors)[2].ops}
    missing = {f.__name__ for f in RULES.values()} - {f.__name__ for f in covered if f}
    assert not missing, f"rules without a case in CASES: {sorted(missing)}"


def test_names_belong_to_operations_that_exist():
    homes = {"aten": A, "torchvision": torch.ops.torchvision}

    def exists(name: str) -> bool:
        home, packet, *overload = name.split(".")
        return hasattr(homes[home], packet) and all(
            hasattr(getattr(homes[home], packet), o) for o in overload
        )

    unknown = [n for n in RULES if n != "pointwise" and not exists(n)]
    assert not unknown, f"misspelt: {unknown}"


def test_two_rules_for_one_operation_are_refused():
    with pytest.raises(MetanetError, match=r"two operation rules named 'aten\.mm'"):
        rule("aten.mm")(lambda call: None)


def test_rules_say_what_they_are():
    undocumented = {f.__name__ for f in RULES.values() if not inspect.getdoc(f)}
    assert not undocumented
