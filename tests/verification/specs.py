"""Specs written by hand for small models."""

from torch import nn

from metanet.symmetry import Axis, Fixed, Group, Leaf, SymmetrySpec, TensorAxes


def spec_of(
    model: nn.Module, groups: list[Group], axes: dict[str, tuple[str | Axis | None, ...]]
) -> SymmetrySpec:
    """A spec by hand: axes by tensor, as group names or axis expressions; ``None`` and tensors left
    out are fixed."""
    sizes = {g.name: g.size for g in groups}
    tensors: dict[str, TensorAxes] = {}
    first: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point() or tensor.is_complex():
            given = zip(axes.get(name, (None,) * tensor.ndim), tensor.shape, strict=True)
            made = tuple(
                Leaf(a, sizes[a]) if isinstance(a, str) else a or Fixed(n) for a, n in given
            )
            dtype = str(tensor.dtype).removeprefix("torch.")
            owner = first.setdefault(id(tensor), name)
            tied = None if owner == name else owner
            tensors[name] = TensorAxes(
                shape=tuple(tensor.shape), dtype=dtype, axes=made, tied_to=tied
            )
    return SymmetrySpec(tuple(groups), tensors)


def mlp() -> nn.Module:
    """Two hidden layers of the same width."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


MLP_GROUPS = [Group(name="a", size=6), Group(name="b", size=6)]
MLP_AXES = {
    "0.weight": ("a", None),
    "0.bias": ("a",),
    "2.weight": ("b", "a"),
    "2.bias": ("b",),
    "4.weight": (None, "b"),
}

# of modules with a linear layer `a`, something pointwise, and a linear layer `b`
AB_GROUPS = [Group(name="g", size=6)]
AB_AXES = {"a.weight": ("g", None), "a.bias": ("g",), "b.weight": (None, "g")}
