"""The vocabulary of the parameter graph: which integers stand for which kind of node, edge and activation.

New kinds are appended, never inserted or renumbered: saved metanetworks embed these integers.

===============  =========  =======  ==========================================================================
attribute        shape      dtype    meaning
===============  =========  =======  ==========================================================================
edge_index       (2, E)     int64    source and destination node of every edge, in the order data flows
edge_attr        (E, 1)     float    the parameter's entry; 1 on constant edges
edge_type        (E,)       int64    :class:`EdgeType`
edge_layer       (E,)       int64    layer of the destination
edge_tensor      (E,)       int64    number of the block (tensor) within its graph
kernel_pos       (E, 3)     int64    position in the kernel, -1 where the tensor has no such axis
fan_in           (E,)       int64    entries of the same tensor that reach the same destination
fan_out          (E,)       int64    entries of the same tensor that leave the same source
node_type        (N,)       int64    :class:`NodeType`
node_layer       (N,)       int64    longest path from the network's inputs, counted in sites
node_site        (N,)       int64    number of the node's range (site or source) within its graph
node_width       (N,)       int64    neurons of the site the node belongs to
activation       (N,)       int64    what follows the site: an entry of :data:`ACTIVATIONS`
io_position      (N,)       int64    position of an input or output neuron, -1 for hidden neurons
depth            (1,)       int64    layer of the deepest site
===============  =========  =======  ==========================================================================

``edge_index`` is shifted by PyTorch Geometric when graphs are batched; everything else is concatenated.
"""

from enum import IntEnum


class NodeType(IntEnum):
    """What a node stands for."""

    INPUT = 0
    HIDDEN = 1
    OUTPUT = 2
    SUM = 3  # a residual addition
    BIAS = 4  # from here on: one source node per 1-D tensor
    SCALE = 5
    MEAN = 6
    VARIANCE = 7
    TENSOR = 8  # a tensor whose place in the network is not known


class EdgeType(IntEnum):
    """What an edge's parameter does."""

    LINEAR = 0
    CONVOLUTION = 1
    BIAS = 2
    SHIFT = 3  # of a normalisation
    SCALE = 4
    MEAN = 5  # running statistics
    VARIANCE = 6
    RESIDUAL = 7  # constant: each summand to the sum
    PRODUCT = 8  # constant: each factor of a gate to the product
    TENSOR = 9  # place in the network not known


ACTIVATIONS: tuple[str, ...] = (
    "none", "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "sin", "softplus", "hardtanh",
    "hardswish", "hardsigmoid", "celu", "selu", "mish", "softmax", "log_softmax", "exp", "other",
)  # fmt: skip

ROLES: tuple[str, ...] = ("group", "destination", "source", "kernel")
