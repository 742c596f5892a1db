"""torchvision's deformable convolution, also where its compiled part cannot load: then in plain
PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

SCHEMA = (
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor"
)


def plain(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, stride_h: int, stride_w: int,
    pad_h: int,
    pad_w: int, dilation_h: int, dilation_w: int, groups: int, offset_groups: int, use_mask: bool,
) -> Tensor:  # fmt: skip
    """Deformable ConvNets v2 (Zhu et al. 2018, https://arxiv.org/abs/1811.11168): bilinear reading,
    zeros outside."""
    batch, channels, height, width = x.shape
    kernel_h, kernel_w = weight.shape[2:]
    down, across = offset.shape[2:]
    count = kernel_h * kernel_w
    shifts = offset.view(batch, offset_groups, count, 2, down, across)
    k = torch.arange(count)
    rows = (
        torch.arange(down)[:, None] * stride_h - pad_h + (k // kernel_w * dilation_h)[:, None, None]
    )
    columns = torch.arange(across) * stride_w - pad_w + (k % kernel_w * dilation_w)[:, None, None]
    y, z = (
        rows + shifts[:, :, :, 0],
        columns + shifts[:, :, :, 1],
    )  # (batch, offset groups, kernel, down, across)
    grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], -1).flatten(0, 1)
    parts = x.reshape(batch * offset_groups, channels // offset_groups, height, width)
    read = F.grid_sample(parts, grid.flatten(1, 2), align_corners=True)
    read = read.view(batch, offset_groups, -1, count, down, across)
    if use_mask:
        read = read * mask.view(batch, offset_groups, 1, count, down, across)
    columns_ = read.reshape(batch, groups, channels // groups * count, down * across)
    out = weight.reshape(groups, -1, channels // groups * count) @ columns_
    return out.reshape(batch, -1, down, across) + bias[:, None, None]


def defined() -> torch.library.Library | None:
    """Defines the operation unless torchvision has it."""
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(SCHEMA)
    library.impl("deform_conv2d", plain, "CompositeExplicitAutograd")
    return library


LIBRARY = defined()  # an operation lives as long as the library that defines it
deform_conv2d = torch.ops.torchvision.deform_conv2d
