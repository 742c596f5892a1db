"""Normalisation of values tensor by tensor, also of networks that were not there when it was fitted."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import MetanetError
from ..graph import GraphStack
from ._layout import finite
from ._tables import CONSTANT_TYPES, EDGE_TYPES, LAYERS, SIGNAL_TYPES, Rows
from ._values import centre_and_scale


class RoleNormalisation(nn.Module):
    r"""Centre and scale of the values of every *role*: kind of edge, layer from the input, and layer
    from the output.

    In one architecture that is one role per tensor, nearly always; another architecture finds the
    tensors that stand where its own do. A role that was never seen takes the units of its kind, a
    kind that was never seen those of values that are normalised already.

    Values are compared in units of :math:`1 / \sqrt{fan_{in}}`, so that layers of other widths find
    units that fit (initialisations of all kinds scale like that). Weights through which signals
    travel are not shifted: 0 is no connection.
    """

    centre: Float[Tensor, "kinds layers layers"]
    scale: Float[Tensor, "kinds layers layers"]

    def __init__(self) -> None:
        super().__init__()
        shape = (EDGE_TYPES, LAYERS, LAYERS)
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, stacks: Iterable[GraphStack]) -> None:
        """Takes the units from the graphs given (every n-th value where there are many)."""
        samples: defaultdict[tuple[int, int, int], list[Tensor]] = defaultdict(list)
        for stack in stacks:
            template = stack.template
            for block, fan_in in zip(template.blocks, template.fan_in, strict=True):
                values = block.dense(stack.edge_attr.detach()).reshape(-1)
                values = finite(values.double().cpu()) * fan_in**0.5
                role = (int(block.type), block.layer, template.depth - block.layer)
                samples[role[0], min(role[1], LAYERS - 1), min(role[2], LAYERS - 1)].append(values)
        if not samples:
            raise MetanetError("fit_normalisation was given no graphs")
        for kind in {role[0] for role in samples} - set(CONSTANT_TYPES):
            parts = [part for role, own in samples.items() if role[0] == kind for part in own]
            self._set(kind, (slice(None), slice(None)), parts)
        for (kind, layer, from_output), parts in samples.items():
            if kind not in CONSTANT_TYPES:
                self._set(kind, (layer, from_output), parts)

    def _set(self, kind: int, place: tuple[int | slice, int | slice], parts: list[Tensor]) -> None:
        centre, scale = centre_and_scale(parts)
        self.centre[(kind, *place)] = 0.0 if kind in SIGNAL_TYPES else centre
        self.scale[(kind, *place)] = scale

    def units(self, table: Rows) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
        """Centre and scale for each row of a table of edges or tensors."""
        layer = table["layer"].clamp(0, LAYERS - 1)
        from_output = (table["depth"] - table["layer"]).clamp(0, LAYERS - 1)
        unit = table["fan_in"].to(self.scale).rsqrt()
        role = (table["kind"], layer, from_output)
        return self.centre[role] * unit, self.scale[role] * unit
