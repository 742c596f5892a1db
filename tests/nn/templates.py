"""Graph templates built by hand, so that the metanetworks are tested independently of tracing."""

from math import prod

from metanet.graph import Block, EdgeType, GraphTemplate, NodeRange, NodeType


class Builder:
    """Collects node ranges and blocks; every method returns the number of the range it made."""

    def __init__(self) -> None:
        self.nodes: list[NodeRange] = []
        self.blocks: list[Block] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.last = 0  # edges so far

    def site(
        self, name: str, count: int, type: NodeType, layer: int, activation: str = "none"
    ) -> int:
        start = self.nodes[-1].stop if self.nodes else 0
        self.nodes.append(
            NodeRange(
                name=name, start=start, count=count, type=type, layer=layer, activation=activation
            )
        )
        return len(self.nodes) - 1

    def block(
        self, tensor: str | None, shape, roles, source: int, destination: int, type: EdgeType
    ) -> None:
        start, self.last = self.last, self.last + prod(shape)
        names = () if tensor is None else (tensor,)
        if tensor is not None:
            self.shapes[tensor] = tuple(shape)
        self.blocks.append(
            Block(tensor=tensor, names=names, start=start, shape=tuple(shape), roles=tuple(roles),
                source=source,
                  destination=destination, type=type, layer=self.nodes[destination].layer)
        )  # fmt: skip

    def tensor(self, name: str, shape: tuple[int, ...]) -> int:
        """Room for a tensor whose edges lie in several blocks, or not in its own order: the number
        of its first."""
        self.shapes[name] = shape
        self.last += prod(shape)
        return self.last - prod(shape)

    def part(self, tensor: str | None, start: int, shape, roles: str, source: int, destination: int,
        type: EdgeType,
             **steps: object) -> None:  # fmt: skip
        """A block of any kind; roles by their initials, constant edges start where the last block
        ended."""
        names = {"g": "group", "d": "destination", "s": "source", "k": "kernel"}
        if tensor is None:
            start, self.last = self.last, self.last + prod(shape)
        block = Block(
            tensor=tensor, names=(tensor,) if tensor else (), start=start, shape=tuple(shape),
            roles=tuple(names[r] for r in roles), source=source, destination=destination, type=type,
            layer=self.nodes[destination].layer, **steps,
        )  # fmt: skip
        self.blocks.append(block.simplified(self.nodes))

    def vector(self, tensor: str, site: int, edge: EdgeType, node: NodeType) -> None:
        """The one source node of a 1-D tensor and its edges."""
        target = self.nodes[site]
        source = self.site(tensor, 1, node, target.layer)
        self.block(tensor, (target.count,), ("destination",), source, site, edge)

    def residual(self, source: int, destination: int) -> None:
        self.block(
            None, (self.nodes[source].count,), ("group",), source, destination, EdgeType.RESIDUAL
        )

    def norm(self, name: str, site: int) -> None:
        self.vector(f"{name}.weight", site, EdgeType.SCALE, NodeType.SCALE)
        self.vector(f"{name}.bias", site, EdgeType.SHIFT, NodeType.BIAS)
        self.vector(f"{name}.running_mean", site, EdgeType.MEAN, NodeType.MEAN)
        self.vector(f"{name}.running_var", site, EdgeType.VARIANCE, NodeType.VARIANCE)

    def build(self, dtype: str = "float64") -> GraphTemplate:
        return GraphTemplate(
            tuple(self.nodes), tuple(self.blocks), dict.fromkeys(self.shapes, dtype), self.shapes
        )


def mlp(*widths: int, activation: str = "relu", dtype: str = "float64") -> GraphTemplate:
    b = Builder()
    at = b.site("input", widths[0], NodeType.INPUT, 0)
    for i, width in enumerate(widths[1:]):
        last = i == len(widths) - 2
        to = b.site(
            f"{i}",
            width,
            NodeType.OUTPUT if last else NodeType.HIDDEN,
            i + 1,
            "none" if last else activation,
        )
        b.block(
            f"{i}.weight", (width, widths[i]), ("destination", "source"), at, to, EdgeType.LINEAR
        )
        b.vector(f"{i}.bias", to, EdgeType.BIAS, NodeType.BIAS)
        at = to
    return b.build(dtype)


def cnn(
    *widths: int,
    activation: str = "relu",
    norm: bool = False,
    residual: bool = False,
    depthwise: bool = False,
    flatten: int = 1,
    classes: int = 5,
    dtype: str = "float64",
) -> GraphTemplate:
    """Convolutions (1 input channel, kernels 3 x 3), then a linear layer over ``flatten`` pixels a
    channel."""
    b = Builder()
    at, layer = b.site("input", 1, NodeType.INPUT, 0), 0

    def convolution(name: str, width: int, at: int, layer: int) -> int:
        to = b.site(name, width, NodeType.HIDDEN, layer, activation)
        shape, roles = (
            (width, b.nodes[at].count, 3, 3),
            ("destination", "source", "kernel", "kernel"),
        )
        b.block(f"{name}.weight", shape, roles, at, to, EdgeType.CONVOLUTION)
        if norm:
            b.norm(f"{name}.norm", to)
        else:
            b.vector(f"{name}.bias", to, EdgeType.BIAS, NodeType.BIAS)
        return to

    for i, width in enumerate(widths):
        layer += 1
        at = convolution(f"conv{i}", width, at, layer)
        if depthwise:
            layer += 1
            to = b.site(f"dw{i}", width, NodeType.HIDDEN, layer, activation)
            b.block(
                f"dw{i}.weight",
                (width, 1, 3, 3),
                ("group", "source", "kernel", "kernel"),
                at,
                to,
                EdgeType.CONVOLUTION,
            )
            at = to
        if residual:
            inner = convolution(f"res{i}", width, at, layer + 1)
            layer += 2
            total = b.site(f"sum{i}", width, NodeType.SUM, layer, activation)
            b.residual(at, total)
            b.residual(inner, total)
            at = total
    out = b.site("head", classes, NodeType.OUTPUT, layer + 1)
    side = round(flatten**0.5)
    shape, roles = (classes, widths[-1], side, side), ("destination", "source", "kernel", "kernel")
    if flatten == 1:
        shape, roles = shape[:2], roles[:2]
    b.block("head.weight", shape, roles, at, out, EdgeType.LINEAR)
    b.shapes["head.weight"] = (classes, prod(shape[1:]))
    b.vector("head.bias", out, EdgeType.BIAS, NodeType.BIAS)
    return b.build(dtype)


def grouped(dtype: str = "float64") -> GraphTemplate:
    """A transposed convolution, whose weight is stored source first, and a grouped one."""
    b = Builder()
    at = b.site("input", 3, NodeType.INPUT, 0)
    to = b.site("up", 6, NodeType.HIDDEN, 1, "tanh")
    # stored source first, as ConvTranspose does
    b.block(
        "up.weight",
        (3, 6, 2, 2),
        ("source", "destination", "kernel", "kernel"),
        at,
        to,
        EdgeType.CONVOLUTION,
    )
    at, to = to, b.site("grouped", 4, NodeType.HIDDEN, 2, "gelu")
    shape, roles = (2, 2, 3, 3), ("group", "destination", "source", "kernel")
    b.block("grouped.weight", shape, roles, at, to, EdgeType.CONVOLUTION)
    b.vector("grouped.bias", to, EdgeType.BIAS, NodeType.BIAS)
    at, to = to, b.site("head", 2, NodeType.OUTPUT, 3)
    b.block("head.weight", (2, 4), ("destination", "source"), at, to, EdgeType.LINEAR)
    return b.build(dtype)
