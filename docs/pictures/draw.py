"""The pictures of the docs, as plain SVG: ``python docs/pictures/draw.py`` writes them all anew.

A test holds that the files are what this script draws.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
INK, GREY, PALE = "#24292f", "#8c959f", "#eaeef2"
COLOURS = ("#d1495b", "#edae49", "#2e7d6b", "#30638e", "#8d5a97", "#76a21e")
ORDER = (2, 0, 3, 1)  # the relabelling that the pictures show: neuron i takes the place of ORDER[i]

Point = tuple[float, float]


class Drawing:
    """Shapes on a white sheet; coordinates are pixels from the upper left."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.shapes: list[str] = []

    def line(
        self, a: Point, b: Point, colour: str = INK, width: float = 1.5, dash: str = ""
    ) -> None:
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.shapes.append(
            f'<line x1="{a[0]:g}" y1="{a[1]:g}" x2="{b[0]:g}" y2="{b[1]:g}" '
            f'stroke="{colour}" stroke-width="{width:g}"{dashes}/>'
        )

    def arrow(self, a: Point, b: Point, colour: str = INK) -> None:
        self.line(a, b, colour)
        self.shapes[-1] = self.shapes[-1].replace("/>", ' marker-end="url(#tip)"/>')

    def circle(self, at: Point, radius: float = 9, fill: str = "white", edge: str = INK) -> None:
        self.shapes.append(
            f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="{radius:g}" fill="{fill}" stroke="{edge}"/>'
        )

    def box(
        self, at: Point, size: Point, fill: str = "white", edge: str = INK, round: float = 0
    ) -> None:
        self.shapes.append(
            f'<rect x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}" '
            f'rx="{round:g}" fill="{fill}" stroke="{edge}"/>'
        )

    def text(
        self,
        at: Point,
        words: str,
        size: int = 13,
        colour: str = INK,
        anchor: str = "middle",
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        self.shapes.append(
            f'<text x="{at[0]:g}" y="{at[1]:g}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}"{weight}>{words}</text>'
        )

    def curve(self, points: Sequence[Point], colour: str = INK) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )

    def svg(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" font-family="sans-serif">'
        )
        tip = (
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{INK}"/></marker></defs>'
        )
        sheet = f'<rect width="{self.width}" height="{self.height}" rx="8" fill="white"/>'
        return "\n".join([head, tip, sheet, *self.shapes, "</svg>", ""])


# ---------------------------------------------------------------- parts of pictures


def column(x: float, top: float, count: int, step: float = 40) -> list[Point]:
    """Places of a layer's neurons."""
    return [(x, top + step * k) for k in range(count)]


def network(d: Drawing, x: float, top: float, order: Sequence[int], gap: float = 80) -> None:
    """Two inputs, four hidden neurons in an order, two outputs; a weight has its neuron's colour."""
    inputs, hidden, outputs = (
        column(x, top + 40, 2),
        column(x + gap, top, 4),
        column(x + 2 * gap, top + 40, 2),
    )
    for neuron, place in enumerate(order):
        for at in (*inputs, *outputs):
            d.line(at, hidden[place], COLOURS[neuron], 2)
    for neuron, place in enumerate(order):
        d.circle(hidden[place], fill=COLOURS[neuron])
    for at in (*inputs, *outputs):
        d.circle(at)


def grid(d: Drawing, at: Point, rows: Sequence[str], columns: int, cell: float = 22) -> None:
    """A matrix whose rows have colours."""
    for i, colour in enumerate(rows):
        for j in range(columns):
            d.box((at[0] + j * cell, at[1] + i * cell), (cell, cell), colour, "white")


def card(
    d: Drawing, at: Point, title: str, *lines: str, width: float = 150, fill: str = PALE
) -> None:
    d.box(at, (width, 30 + 17 * len(lines)), fill, GREY, 6)
    d.text((at[0] + width / 2, at[1] + 20), title, 14, bold=True)
    for k, line in enumerate(lines):
        d.text((at[0] + width / 2, at[1] + 38 + 17 * k), line, 12)


# ---------------------------------------------------------------- the pictures


def overview() -> Drawing:
    """What follows from what: the README's picture."""
    d = Drawing(760, 250)
    card(d, (10, 95), "your network", "nn.Module")
    d.arrow((160, 119), (215, 119))
    d.text((187, 111), "trace", 12)
    card(d, (215, 87), "SymmetrySpec", "which neurons", "may change places", fill="#dceee9")
    card(d, (430, 10), "parameter graph", "neurons: nodes", "weights: edges")
    card(d, (430, 158), "alignment", "one network's neurons", "in another's order", width=160)
    d.arrow((365, 105), (430, 50))
    d.arrow((365, 130), (430, 190))
    card(d, (640, 10), "metanetwork", "reads weights,", "blind to order", width=112)
    d.arrow((580, 42), (640, 42))
    card(d, (640, 133), "merge", "many into one", width=112)
    card(d, (640, 193), "barrier", "the way between", width=112)
    d.arrow((590, 185), (640, 160))
    d.arrow((590, 200), (640, 215))
    d.text((85, 165), "any architecture,", 12, GREY)
    d.text((85, 181), "nothing specified by hand", 12, GREY)
    return d


def relabelling() -> Drawing:
    """Two networks of one function."""
    d = Drawing(640, 210)
    network(d, 60, 45, range(4))
    network(d, 420, 45, ORDER)
    d.arrow((265, 105), (375, 105))
    d.text((320, 95), "transform", 13)
    d.text((320, 125), "same function", 12, GREY)
    d.text((140, 25), "a state dict", 13)
    d.text((500, 25), "another one", 13)
    d.text((140, 198), "one group of 4 neurons", 12, GREY)
    d.text((500, 198), "weights moved with their neurons", 12, GREY)
    return d


def axes() -> Drawing:
    """How an axis of a tensor is made."""
    d = Drawing(720, 270)
    q = [COLOURS[0], COLOURS[0], COLOURS[1], COLOURS[1]]
    grid(d, (60, 70), COLOURS[:4], 3)
    d.text((93, 50), "fixed (inputs)", 12)
    d.text((48, 120), "group", 12, anchor="end")
    d.text((93, 190), "weight of a layer", 13, bold=True)
    d.text((93, 208), "one group, one fixed axis", 12, GREY)
    grid(d, (290, 70), q, 4)
    d.text((280, 95), "head 1", 12, anchor="end")
    d.text((280, 139), "head 2", 12, anchor="end")
    d.text((334, 190), "weight of queries", 13, bold=True)
    d.text((334, 208), "product: heads x dims", 12, GREY)
    grid(d, (550, 40), q, 4, 16)
    grid(d, (550, 108), q, 4, 16)
    grid(d, (550, 176), [COLOURS[2], COLOURS[2], COLOURS[3], COLOURS[3]], 4, 16)
    for k, name in enumerate("qkv"):
        d.text((540, 77 + 68 * k), name, 13, anchor="end")
    d.text((640, 120), "fused q, k, v", 13, anchor="start", bold=True)
    d.text((582, 258), "concatenation: q | k | v, each heads x dims", 12, GREY)
    return d


def keyed() -> Drawing:
    """Dims of heads: a wreath product."""
    d = Drawing(640, 190)
    for side, (heads, dims) in enumerate(
        [((0, 1), ((0, 1, 2), (0, 1, 2))), ((1, 0), ((2, 0, 1), (1, 0, 2)))]
    ):
        left = 40 + 330 * side
        for place, head in enumerate(heads):
            x = left + 130 * place
            d.box((x, 50), (110, 60), PALE, COLOURS[3 * head], 6)
            d.text((x + 55, 130), f"head {head + 1}", 12, COLOURS[3 * head])
            for k, dim in enumerate(dims[head]):
                d.circle((x + 22 + 33 * k, 80), 13, "white", COLOURS[3 * head])
                d.text((x + 22 + 33 * k, 85), str(dim + 1), 13)
    d.arrow((290, 80), (360, 80))
    d.text((170, 30), "heads may change places", 13)
    d.text((500, 30), "dims too, in each head its own way", 13)
    d.text(
        (320, 170), "group dims[3] per heads: one arrangement for each item of the key", 12, GREY
    )
    return d


def graph() -> Drawing:
    """A layer and its parameter graph."""
    d = Drawing(680, 250)
    grid(d, (60, 60), COLOURS[:3], 2, 30)
    d.text((90, 45), "weight (3, 2)", 12)
    grid(d, (150, 60), COLOURS[:3], 1, 30)
    d.text((166, 170), "bias (3,)", 12)
    d.arrow((220, 105), (300, 105))
    d.text((260, 95), "to_graph", 12)
    inputs, hidden, bias = column(350, 80, 2, 60), column(500, 50, 3, 60), (430, 215)
    for k, to in enumerate(hidden):
        for at in inputs:
            d.line(at, to, COLOURS[k], 2)
        d.line(bias, to, COLOURS[k], 2)
    for at in (*inputs, *hidden):
        d.circle(at, 11)
    d.box((bias[0] - 9, bias[1] - 9), (18, 18))
    d.text((350, 50), "inputs", 12)
    d.text((500, 25), "neurons", 12)
    d.text((405, 220), "source node of the bias", 12, anchor="end")
    d.text((540, 115), "6 + 3 entries:", 13, anchor="start")
    d.text((540, 132), "9 edges", 13, anchor="start")
    return d


def template() -> Drawing:
    """What checkpoints share, and what each has."""
    d = Drawing(680, 215)
    card(
        d,
        (20, 60),
        "template",
        "edge_index, types,",
        "layers, positions",
        width=170,
        fill="#dceee9",
    )
    d.text((105, 160), "once per architecture", 12, GREY)
    for k in range(3):
        y = 25 + 58 * k
        d.box((260, y), (200, 34), "white", GREY, 4)
        for block, (x, width) in enumerate([(266, 90), (360, 30), (394, 60)]):
            d.box((x, y + 6), (width, 22), COLOURS[block], "white")
        d.arrow((190, 95), (258, y + 17))
        d.arrow((460, y + 17), (520, y + 17))
        d.text((590, y + 22), f"graph {k + 1}", 13)
    d.text(
        (360, 203),
        "edge values of a checkpoint, block after block: a tensor is a stretch of edges",
        12,
        GREY,
    )
    return d


def barrier() -> Drawing:
    """Loss along the straight path, before and after alignment."""
    d = Drawing(520, 230)
    d.arrow((60, 190), (60, 30))
    d.arrow((60, 190), (470, 190))
    d.text((60, 20), "loss", 12)
    d.text((80, 208), "a", 14, bold=True)
    d.text((440, 208), "b", 14, bold=True)
    steps = [k / 40 for k in range(41)]
    for height, colour, words, at in (
        (110, COLOURS[0], "as they are", (260, 42)),
        (8, COLOURS[2], "aligned", (260, 148)),
    ):
        points = [(80 + 360 * t, 168 - height * 4 * t * (1 - t)) for t in steps]
        d.curve(points, colour)
        d.text(at, words, 13, colour)
    d.line((490, 58), (490, 168), GREY, 1.5, "4 3")
    d.text((484, 118), "barrier", 12, GREY, "end")
    return d


def merging() -> Drawing:
    """Averages of neurons in different orders, and in one order."""
    d = Drawing(720, 260)
    top = [COLOURS[k] for k in range(4)]
    moved = [COLOURS[ORDER.index(k)] for k in range(4)]
    for y, second, result, words in (
        (25, moved, [GREY] * 4, "as they are: neurons of different meaning"),
        (150, top, top, "aligned: each with its like"),
    ):
        for x, rows, name in ((60, top, "a"), (240, second, "b"), (420, result, "merged")):
            grid(d, (x, y), rows, 4, 18)
            d.text((x + 36, y + 90), name, 13)
        d.text((185, y + 42), "+", 22)
        d.text((370, y + 42), "=", 22)
        d.text((515, y + 42), words, 12, anchor="start") if len(words) < 30 else _two_lines(
            d, (515, y + 34), words
        )
    return d


def _two_lines(d: Drawing, at: Point, words: str) -> None:
    first, _, second = words.partition(": ")
    d.text(at, f"{first}:", 12, anchor="start")
    d.text((at[0], at[1] + 16), second, 12, anchor="start")


def zoo() -> Drawing:
    """A zoo, and a metanetwork that learns from it."""
    d = Drawing(680, 220)
    for k, label in enumerate(("0.91", "0.54", "0.87")):
        y = 20 + 62 * k
        d.box((30, y), (120, 48), "white", GREY, 4)
        for j in range(4):
            d.circle((50 + 27 * j, y + 24), 8, COLOURS[(j + k) % 4])
        d.text((190, y + 29), label, 14)
        d.arrow((220, y + 24), (300, 105))
    d.text((90, 208), "networks", 12, GREY)
    d.text((190, 208), "labels", 12, GREY)
    card(d, (305, 80), "metanetwork", "learns from graphs", width=160, fill="#dceee9")
    d.arrow((465, 105), (520, 105))
    d.text((595, 100), '"87.3 % test accuracy"', 13)
    d.text((595, 120), "of a network never seen", 12, GREY)
    return d


PICTURES: tuple[Callable[[], Drawing], ...] = (
    overview, relabelling, axes, keyed, graph, template, barrier, merging, zoo,
)  # fmt: skip

if __name__ == "__main__":
    for picture in PICTURES:
        (HERE / f"{picture.__name__}.svg").write_text(picture().svg(), encoding="utf-8")
