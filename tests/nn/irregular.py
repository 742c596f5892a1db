"""Templates built by hand whose blocks are everything but whole matrices: parts of tensors, of
ranges, in any order."""

from collections.abc import Callable

from metanet.graph import EdgeType, GraphTemplate, NodeType
from nn.templates import Builder


def heads() -> GraphTemplate:
    """Attention: 2 keys with 3 queries each, of 2 dimensions, all made by one tensor that holds
    them head by head."""
    b = Builder()
    stream = b.site("input", 4, NodeType.INPUT, 0)
    q, k, v = (b.site(n, count, NodeType.HIDDEN, 1) for n, count in (("q", 12), ("k", 4), ("v", 4)))
    head = b.site("head", 6, NodeType.HEAD, 2, "softmax")
    mixed = b.site("mixed", 12, NodeType.PRODUCT, 3)
    out = b.site("out", 4, NodeType.OUTPUT, 4)
    first = b.tensor("qkv.weight", (2 * 5 * 2, 4))
    per_key = 5 * 2 * 4
    b.part(
        "qkv.weight",
        first,
        (2, 3, 2, 4),
        "ddds",
        stream,
        q,
        EdgeType.QUERY,
        strides=(per_key, 8, 4, 1),
    )
    for at, (to, type) in enumerate(((k, EdgeType.KEY), (v, EdgeType.VALUE)), 3):
        b.part(
            "qkv.weight",
            first + 8 * at,
            (2, 2, 4),
            "dds",
            stream,
            to,
            type,
            strides=(per_key, 4, 1),
        )
    first = b.tensor("qkv.bias", (20,))
    source = b.site("qkv.bias", 1, NodeType.BIAS, 1)
    b.part("qkv.bias", first, (2, 3, 2), "ddd", source, q, EdgeType.BIAS, strides=(10, 2, 1))
    for at, to in enumerate((k, v), 3):
        b.part("qkv.bias", first + 2 * at, (2, 2), "dd", source, to, EdgeType.BIAS, strides=(10, 1))
    b.part(None, 0, (6, 2), "gs", q, head, EdgeType.TO_HEAD)  # many to one
    b.part(None, 0, (2, 3, 2), "gds", k, head, EdgeType.TO_HEAD)
    b.part(None, 0, (2, 3, 2), "gsg", q, k, EdgeType.COUPLING, source_strides=(6, 2, 1))
    b.part(None, 0, (2, 3, 2), "gdg", v, mixed, EdgeType.PRODUCT)
    b.part(None, 0, (6, 2), "gd", head, mixed, EdgeType.PRODUCT)  # one to many
    b.block("out.weight", (4, 12), ("destination", "source"), mixed, out, EdgeType.ATTENTION_OUTPUT)
    return b.build()


def recurrent() -> GraphTemplate:
    """A state that reads itself, through gates that are parts of one range; a step's neurons are
    tied to the state."""
    b = Builder()
    at = b.site("input", 3, NodeType.INPUT, 0)
    state = b.site("state", 4, NodeType.HIDDEN, 1, "tanh")
    gates = b.site("gates", 12, NodeType.SUM, 2, "sigmoid")
    step = b.site("step", 4, NodeType.PRODUCT, 3)
    out = b.site("out", 2, NodeType.OUTPUT, 4)
    b.block("in.weight", (4, 3), ("destination", "source"), at, state, EdgeType.LINEAR)
    b.block("loop.weight", (4, 4), ("destination", "source"), state, state, EdgeType.LINEAR)
    first = b.tensor("hh.weight", (12, 4))
    b.part("hh.weight", first, (4, 4), "ds", state, gates, EdgeType.LINEAR)
    b.part(
        "hh.weight", first + 16, (8, 4), "ds", state, gates, EdgeType.LINEAR, destination_start=4
    )
    b.vector("hh.bias", gates, EdgeType.BIAS, NodeType.BIAS)
    for gate in range(3):
        type = EdgeType.JOINT if gate == 2 else EdgeType.PRODUCT
        b.part(None, 0, (4,), "g", gates, step, type, source_start=4 * gate, source_strides=(1,))
    b.part(None, 0, (4,), "g", step, state, EdgeType.TIED)
    b.part(None, 0, (4,), "g", state, state, EdgeType.TIED, source_start=3, source_strides=(-1,))
    b.block("out.weight", (2, 4), ("destination", "source"), step, out, EdgeType.LINEAR)
    return b.build()


def shuffled() -> GraphTemplate:
    """Channels shuffled before a convolution in groups, columns stored backwards, and a stretch
    read in windows."""
    b = Builder()
    at = b.site("input", 2, NodeType.INPUT, 0)
    a = b.site("a", 12, NodeType.HIDDEN, 1, "relu")
    c = b.site("c", 6, NodeType.HIDDEN, 2, "gelu")
    d = b.site("d", 4, NodeType.HIDDEN, 3, "relu")
    out = b.site("out", 3, NodeType.OUTPUT, 4)
    b.block(
        "a.weight", (12, 2, 3), ("destination", "source", "kernel"), at, a, EdgeType.CONVOLUTION
    )
    first = b.tensor("c.weight", (6, 6, 3))
    b.part(
        "c.weight",
        first,
        (2, 3, 3, 2, 3),
        "gdssk",
        a,
        c,
        EdgeType.CONVOLUTION,
        source_strides=(3, 0, 1, 6, 0),
    )
    first = b.tensor("d.weight", (6, 4))
    b.part(
        "d.weight",
        first,
        (6, 4),
        "sd",
        c,
        d,
        EdgeType.TRANSPOSED,
        source_start=5,
        source_strides=(-1, 0),
    )
    # output neuron i reads neurons i and i + 1: some are met twice within the block
    first = b.tensor("out.weight", (3, 2))
    b.part("out.weight", first, (3, 2), "gs", d, out, EdgeType.TENSOR, source_strides=(1, 1))
    return b.build()


def concatenated() -> GraphTemplate:
    """Dense connections: every tensor reads all that came before, in a piece for each; ranges of a
    single node too."""
    b = Builder()
    ranges = [b.site("input", 2, NodeType.INPUT, 0)]
    for layer, width in enumerate((3, 3, 1, 3, 2), 1):
        last = layer == 5
        type = NodeType.OUTPUT if last else NodeType.HIDDEN
        to = b.site(f"{layer}", width, type, layer, "none" if last else "relu")
        columns = sum(b.nodes[r].count for r in ranges)
        norm, weight = (
            b.tensor(f"{layer}.norm", (columns,)),
            b.tensor(f"{layer}.weight", (width, columns, 2)),
        )
        at = 0
        for r in ranges:
            count = b.nodes[r].count
            scale = b.site(f"{layer}.norm {r}", 1, NodeType.SCALE, layer)
            b.part(f"{layer}.norm", norm + at, (count,), "d", scale, r, EdgeType.SCALE)
            b.part(
                f"{layer}.weight", weight + 2 * at, (width, count, 2), "dsk", r, to, EdgeType.CONVOLUTION,
                strides=(2 * columns, 2, 1),
            )  # fmt: skip
            at += count
        ranges.append(to)
    table = b.site("table", 2, NodeType.ROW, 1)
    b.block("table", (2, 3), ("source", "destination"), table, ranges[1], EdgeType.TABLE)
    one = b.site("shared", 1, NodeType.SHARED, 1)
    b.part(None, 0, (3,), "s", ranges[2], one, EdgeType.SHARE)
    b.part(None, 0, (3,), "d", one, ranges[4], EdgeType.SHARE)
    b.block("scalar", (1,), ("destination",), one, one, EdgeType.ENTRYWISE)
    return b.build()


TEMPLATES: dict[str, Callable[[], GraphTemplate]] = {
    "heads": heads, "recurrent": recurrent, "shuffled": shuffled, "concatenated": concatenated,
}  # fmt: skip
