"""The vocabulary of the parameter graph: which integers stand for which kind of node, edge and
activation.

New kinds are appended, never inserted or renumbered: saved metanetworks embed these integers.

===============  =========  =======  ==============  ===============================================
attribute        shape      dtype    in a batch      meaning
===============  =========  =======  ==============  ===============================================
edge_index       (2, E)     int64    shifted by N    source and destination node of every edge, in
                                                     the order data flows
edge_attr        (E, 1)     float    concatenated    the parameter's entry (of a complex one its
                                                     real or its imaginary part); 1 on constant
                                                     edges
edge_type        (E,)       int64    concatenated    :class:`EdgeType`
edge_layer       (E,)       int64    concatenated    layer of the destination
edge_tensor      (E,)       int64    concatenated    number of the block (tensor, or part of one)
                                                     within its graph
kernel_pos       (E, 3)     int64    concatenated    position in the kernel, -1 where the tensor has
                                                     no such axis
fan_in           (E,)       int64    concatenated    entries of the same block that reach the same
                                                     destination
fan_out          (E,)       int64    concatenated    entries of the same block that leave the same
                                                     source
node_type        (N,)       int64    concatenated    :class:`NodeType`
node_layer       (N,)       int64    concatenated    longest path from the network's inputs, counted
                                                     in sites
node_site        (N,)       int64    concatenated    number of the node's range (site or source)
                                                     within its graph
node_width       (N,)       int64    concatenated    neurons of the range that the node belongs to
node_group       (N,)       int64    concatenated    number of the group that moves the node in
                                                     ``template.groups``, -1 where it keeps its
                                                     place
activation       (N,)       int64    concatenated    what follows the site: an entry of
                                                     :data:`ACTIVATIONS`
io_position      (N,)       int64    concatenated    position of an input or output neuron, -1 for
                                                     hidden neurons
depth            (1,)       int64    concatenated    layer of the deepest site
extras           [dict]     any      list of dicts   tensors that travel unchanged: integer buffers,
                                                     and all whose bits an edge cannot hold
dtypes           [dict]     text     list of dicts   dtype of every tensor in the checkpoint
===============  =========  =======  ==============  ===============================================

``graph.x`` ``(N, features)`` is made of the node attributes when it is asked for.

A complex entry is two parallel edges, one behind the other: a complex tensor counts as the real one
that ``torch.view_as_real`` makes of it, with a last axis of 2 that is a kernel position (0 real, 1
imaginary).

Attributes of one template are the same for all its checkpoints, ``edge_attr``, ``extras`` and
``dtypes`` apart.
"""

from enum import IntEnum, StrEnum


class NodeType(IntEnum):
    """What a node stands for."""

    INPUT = 0
    HIDDEN = 1
    OUTPUT = 2
    SUM = 3  # a residual addition
    BIAS = 4  # from here on: one source node per 1-D tensor, or per row of a table
    SCALE = 5
    MEAN = 6
    VARIANCE = 7
    TENSOR = 8  # a tensor whose place in the network is not known
    PRODUCT = 9  # of two sets of neurons, entry by entry: gates, values under attention
    HEAD = 10  # an attention head: what queries and keys are summed up to
    ROW = 11  # a row of a table: a position, a class token, a latent
    ORIGIN = 12  # what a weight reads where that is no neuron: positions, computed quantities
    SHARED = 13  # all neurons that one and the same entry acts on
    ENTRYWISE = (
        14  # source node of a tensor that enters some other entry-wise function (slopes, exponents)
    )


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
    PRODUCT = 8  # constant: each factor to the product
    TENSOR = 9  # place in the network not known
    QUERY = 10  # linear maps to queries, keys and values of attention, and from its result
    KEY = 11
    VALUE = 12
    ATTENTION_OUTPUT = 13
    EMBEDDING = 14  # rows looked up by the network's input
    TABLE = 15  # rows of a table that do not depend on the input: positions, tokens, latents
    ENTRYWISE = 16  # slopes, exponents: what enters some other entry-wise function
    TRANSPOSED = 17  # transposed convolution
    TO_HEAD = 18  # constant: a query's or key's dimension to its head
    COUPLING = (
        19  # constant: dimension of a query to the dimension of a key that it is multiplied with
    )
    JOINT = 20  # constant: operands of some other entry-wise function to what comes out
    SHARE = 21  # constant: between neurons and the one node that stands for all of them
    TIED = 22  # constant: this neuron's weights are those of that one


ACTIVATIONS: tuple[str, ...] = (
    "none", "relu", "gelu", "silu", "tanh", "sigmoid", "leaky_relu", "elu", "sin", "softplus", "hardtanh",
    "hardswish", "hardsigmoid", "celu", "selu", "mish", "softmax", "log_softmax", "exp", "other",
)  # fmt: skip
"""What may follow a neuron: node feature ``activation`` is a position in this list."""


def parts_of(dtype: str) -> int:
    """Edges of one entry of a tensor: two where it is complex, one where it is real."""
    return 2 if dtype.startswith("complex") else 1


class Role(StrEnum):
    """What a digit of a tensor counts.

    Neurons of a group that both ends share, destinations, sources, or places in a kernel.
    """

    GROUP = "group"
    DESTINATION = "destination"
    SOURCE = "source"
    KERNEL = "kernel"


ROLES: tuple[str, ...] = tuple([role.value for role in Role])
"""The name of every :class:`Role`."""

NODE_KEYS: tuple[str, ...] = (
    "node_type", "node_layer", "node_site", "node_width", "node_group", "activation", "io_position",
)  # fmt: skip
EDGE_KEYS: tuple[str, ...] = (
    "edge_type",
    "edge_layer",
    "edge_tensor",
    "kernel_pos",
    "fan_in",
    "fan_out",
)
