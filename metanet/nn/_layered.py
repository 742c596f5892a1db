r"""The graphs of a batch layer by layer, for metanetworks that follow the data through networks.

Nodes are held in one array for each layer. A message from source ``s`` to destination ``d`` along an
edge of value ``w`` is

.. math::
    m_{sd} = g \odot \sum_k \phi_k(w)\; x^{(k)}_s

with *views* :math:`\phi_k` of the value, one vector :math:`x^{(k)}_s` of the source for each of them,
and a *gain* ``g`` that knows what the edge is (kind, layer, place in the kernel) but not its value.
A node hears the sum of its messages, those of each block divided by the root of how many edges of the
block reach it: values in units of their tensor then say the same in networks of any width. For each
block that is one product of its views with the sources, so no array of edges times width is made::

    views of a block (d, s k)  @  sources (s k, width)  =  what destinations hear (d, width)

:class:`~metanet.nn._dense_layered.DenseLayered` and
:class:`~metanet.nn._sparse_layered.SparseLayered` give the same numbers, each in its own order of nodes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

Views = Callable[[Tensor], Tensor]
"""From normalised values ``(...)`` to their views ``(..., views)``."""


class Layered(ABC):
    """The nodes of a batch of graphs, layer by layer.

    Attributes:
        depth: how many layers there are, empty ones included. What no edge reaches is in layer 0.
        loops: for each layer ``(nodes, 1)``, 1 where an edge reaches the node that comes from its
            own layer or a later one.
        sends: likewise, where an edge leaves the node for a later layer.
    """

    depth: int
    loops: Sequence[Float[Tensor, "nodes 1"]]
    sends: Sequence[Float[Tensor, "nodes 1"]]

    @abstractmethod
    def by_layer(self, rows: Float[Tensor, "rows width"]) -> list[Float[Tensor, "nodes width"]]:
        """Numbers computed per row of the layout's table of nodes, brought to the nodes."""

    @abstractmethod
    def weights(
        self, centre: Float[Tensor, " rows"], scale: Float[Tensor, " rows"], views: Views
    ) -> Any:
        """Views of all values, ``views((value - centre) / scale)``, for :meth:`inward` and
        :meth:`outward`.

        Args:
            centre, scale: for each row of the layout's table of edges.
        """

    @abstractmethod
    def inward(
        self,
        layer: int,
        x: Sequence[Float[Tensor, "nodes features"]],
        weights: Any,
        gains: Float[Tensor, "rows width"],
    ) -> Float[Tensor, "nodes width"]:
        """What the nodes of a layer hear from their sources.

        Args:
            x: for each layer, ``views * width`` features of its nodes as sources.
            weights: of :meth:`weights`.
            gains: for each row of the layout's table of edges.
        """

    @abstractmethod
    def outward(
        self,
        layer: int,
        x: Sequence[Float[Tensor, "nodes features"]],
        weights: Any,
        gains: Float[Tensor, "rows width"],
    ) -> Float[Tensor, "nodes width"]:
        """What the nodes of a layer hear from the later layers that they send to."""

    @abstractmethod
    def moments(
        self, x: Sequence[Float[Tensor, "nodes width"]]
    ) -> tuple[Float[Tensor, "sites width"], Float[Tensor, "sites width"]]:
        """Means over the nodes of every site: of features and of their squares, in the order of the
        layout's sites."""
