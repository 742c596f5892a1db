"""Pictures of graphs: what they show is what the graph holds, and where it stands makes sense."""

import itertools
import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn

import metanet
from metanet.errors import MetanetError
from metanet.graph import NodeType, permute_nodes
from metanet.graph.picture import _png
from metanet.graph.picture._columns import arrange
from metanet.graph.picture._compose import compose
from metanet.graph.picture._html import draw_html
from metanet.graph.picture._png import draw
from metanet.graph.picture._rows import number_of
from metanet.testing import Residual
from networks import ARCHITECTURES


def graph_of(name: str):
    make, example = ARCHITECTURES[name]
    model = make()
    arch = metanet.trace(model, example())
    return metanet.to_graph(model, arch), arch.template


def deep(layers: int = 60):
    """Residual blocks, one behind the other."""
    blocks = [
        Residual(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)))
        for _ in range(layers // 2)
    ]
    model = nn.Sequential(nn.Linear(3, 6), *blocks, nn.Linear(6, 2))
    arch = metanet.trace(model, torch.randn(4, 3))
    return metanet.to_graph(model, arch), arch.template, model


class TestWhatIsShown:
    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_every_stroke_is_an_edge_of_the_graph(self, name):
        graph, template = graph_of(name)
        picture = compose(graph, template)
        assert picture.drawn == sum(len(s.edges) for s in picture.strokes) > 0
        for strokes in picture.strokes:
            block = picture.block(strokes)
            for (a, b), value, edge in zip(
                strokes.ends, strokes.values, strokes.edges, strict=False
            ):
                source, destination = graph.edge_index[:, edge].tolist()
                for spot, node, number in (
                    (a, source, block.source),
                    (b, destination, block.destination),
                ):
                    assert picture.spots[spot, 2] == number == graph.node_site[node]
                    assert template.nodes[number].start + max(0, picture.spots[spot, 3]) == node
                assert value == graph.edge_attr[edge, 0]

    def test_a_small_network_is_drawn_whole(self):
        graph, template = graph_of("siren")
        picture = compose(graph, template)
        edges = np.concatenate([s.edges for s in picture.strokes])
        assert sorted(edges) == list(range(template.num_edges))
        assert picture.caption == f"all {template.num_edges:,} edges"

    def test_the_largest_edges_of_every_tensor_are_drawn(self):
        graph, template = graph_of("mlp")
        picture = compose(graph, template, max_edges=60, max_neurons=64)
        assert picture.drawn == 60
        assert "60 of " in picture.caption
        for strokes in picture.strokes:
            sizes = (
                graph.edge_attr[picture.block(strokes).edges(), 0]
                .abs()
                .sort(descending=True)
                .values
            )
            assert (
                sorted(np.abs(strokes.values), reverse=True)
                == sizes[: len(strokes.values)].tolist()
            )
        kept = [len(s.edges) for s in picture.strokes]
        assert max(kept) - min(kept) <= 1 or min(kept) == min(b.count for b in template.blocks)

    def test_with_fewer_edges_than_tensors_the_rest_is_a_line_each(self):
        graph, template = graph_of("mlp")
        picture = compose(graph, template, max_edges=2)
        assert picture.drawn == 2 and "thin lines where none of them is" in picture.caption
        pairs = {(picture.block(s).source, picture.block(s).destination) for s in picture.strokes}
        assert pairs == {(b.source, b.destination) for b in template.blocks}
        assert sum(s.is_bundle for s in picture.strokes) == len(template.blocks) - 2

    def test_labels_say_name_number_and_activation(self):
        labels = [
            place.label
            for place in compose(*graph_of("mlp"), max_neurons=10).places
            if place.kind == "site"
        ]
        assert labels == [
            ("input 0", "10 of 64"),
            ("1", "10 of 12 relu"),
            ("3", "9 tanh"),
            ("5", "10"),
        ]

    def test_of_a_kernel_the_largest_entry(self):
        graph, template = graph_of("cnn_flatten")
        picture = compose(graph, template)
        (strokes,) = (s for s in picture.strokes if picture.block(s).tensor == "3.weight")
        weight = graph.edge_attr[picture.block(strokes).edges(), 0].view(
            6, 4, 4
        )  # outputs, inputs, positions
        assert len(strokes.values) == 24
        assert sorted(np.abs(strokes.values)) == sorted(weight.abs().amax(2).flatten().tolist())
        assert "of a kernel the largest entry" in picture.caption

    def test_neurons_are_chosen_evenly_and_the_true_count_stands_below(self):
        graph, template = graph_of("mlp")
        picture = compose(graph, template, max_neurons=5)
        for place in picture.places:
            r = template.nodes[place.number]
            shown = picture.spots[place.spots.start : place.spots.stop, 3]
            if r.count <= 5:
                assert len(shown) == r.count and place.label[-1].startswith(f"{r.count}")
            else:
                assert len(shown) == 5 and (shown[0], shown[-1]) == (0, r.count - 1)
                assert np.ptp(np.diff(shown)) <= 1
                assert place.label[-1].startswith(f"5 of {r.count}")

    def test_nodes_in_another_order_give_the_same_picture(self):
        graph, template = graph_of("residual")
        order = torch.cat([torch.arange(r.count) + r.start for r in reversed(template.nodes)])
        one, other = compose(graph, template), compose(permute_nodes(graph, order), template)
        assert np.array_equal(one.spots, other.spots)
        for a, b in zip(one.strokes, other.strokes, strict=True):
            assert np.array_equal(a.ends, b.ends) and np.array_equal(a.values, b.values)

    def test_nan_and_inf_are_counted_and_drawn(self):
        graph, template = graph_of("siren")
        graph.edge_attr[5], graph.edge_attr[9] = float("nan"), float("inf")
        picture = compose(graph, template, max_edges=30)
        assert "; 2 of all are NaN or infinite" in picture.caption
        assert {5, 9} <= set(np.concatenate([s.edges for s in picture.strokes]))
        assert np.isfinite(picture.scale)

    def test_bad_arguments(self):
        graph, template = graph_of("mlp")
        with pytest.raises(
            MetanetError, match="max_edges=0 and max_neurons=None must be 1 or more"
        ):
            compose(graph, template, max_edges=0)
        with pytest.raises(
            MetanetError, match=f"the graph has {graph.num_nodes} nodes and .*, its template"
        ):
            compose(graph, graph_of("siren")[1])


class TestWhereItStands:
    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_columns_follow_the_layers_and_nothing_overlaps(self, name):
        graph, template = graph_of(name)
        picture = compose(graph, template)
        columns = defaultdict(list)
        for place in picture.places:
            if place.kind == "site":
                columns[place.x].append(place)
        for x, places in columns.items():
            assert len({template.nodes[p.number].layer for p in places}) == 1, x
            ordered = sorted(places, key=lambda p: p.y)
            for upper, lower in zip(ordered, ordered[1:], strict=False):
                assert upper.y + upper.half < lower.y - lower.half
        layers = [template.nodes[places[0].number].layer for _, places in sorted(columns.items())]
        assert layers == sorted(set(layers))
        assert len(picture.rows) == 1
        x, y = picture.spots[:, 0], picture.spots[:, 1]
        assert (
            (x > 0).all()
            and (x < picture.width).all()
            and (y > 0).all()
            and (y < picture.height).all()
        )
        for strokes in picture.strokes:
            paths = picture.paths(strokes)
            assert (paths[..., 1] > 0).all() and (paths[..., 1] < picture.height).all()
            if not strokes.back:
                assert (np.diff(paths[..., 0], axis=1) >= 0).all()  # data flows to the right

    def test_skip_connections_go_round_the_columns_they_pass(self):
        graph, template = graph_of("residual")
        picture = compose(graph, template)
        passing = [s for s in picture.strokes if s.via]
        assert passing and all(picture.block(s).tensor is None for s in passing)
        for strokes in passing:
            block = picture.block(strokes)
            assert (
                len(strokes.via)
                == template.nodes[block.destination].layer - template.nodes[block.source].layer - 1
            )
            for x, y, squeeze in strokes.via:
                reach = squeeze * picture.places[block.source].half
                for place in picture.places:
                    if place.kind == "site" and place.x == x:
                        assert y + reach < place.y - place.half or y - reach > place.y + place.half

    def test_source_nodes_stand_beside_what_they_act_on(self):
        graph, template = graph_of("cnn_batchnorm")
        picture = compose(graph, template)
        sides = [p for p in picture.places if p.kind == "side"]
        sources = {NodeType.BIAS, NodeType.SCALE, NodeType.MEAN, NodeType.VARIANCE}
        assert {p.number for p in sides} == {
            i for i, r in enumerate(template.nodes) if r.type in sources
        }
        for place in sides:
            host = picture.places[
                next(b.destination for b in template.blocks if b.source == place.number)
            ]
            assert 0 < host.x - place.x < picture.spacing
            assert place.y > host.y + host.half

    def test_ranges_take_the_height_they_ask_for(self):
        _, template = graph_of("resnet")
        n = len(template.nodes)
        layout = arrange(template, [1.0] * n, [2.0] * n, 0.25)
        columns = defaultdict(list)
        for i, column in layout.column.items():
            columns[column].append((layout.y[i] - 1.0, layout.y[i] + 2.0))
        for (_, column), y in layout.lanes.items():
            columns[column].append((y - 0.25, y + 0.25))
        for intervals in columns.values():
            ordered = sorted(intervals)
            assert all(a[1] <= b[0] + 1e-9 for a, b in zip(ordered, ordered[1:], strict=False))
            assert ordered[0][0] >= -1e-9 and ordered[-1][1] <= layout.height + 1e-9


class TestDeepNetworks:
    def test_one_dot_a_range_and_bundles_by_norm(self):
        graph, template, model = deep()
        picture = compose(graph, template)
        assert picture.whole and picture.drawn == 0 and len(picture.spots) == len(template.nodes)
        assert len(picture.rows) > 1 and 1 < picture.width / picture.height < 2.5
        names = dict(model.named_parameters())
        for strokes in picture.strokes:
            blocks = [template.blocks[i] for i in strokes.blocks]
            if blocks[0].tensor is not None:
                (name,) = {b.tensor for b in blocks}
                assert float(strokes.values[0]) == pytest.approx(
                    float(names[name].detach().norm()), rel=1e-5
                )
            else:
                assert float(strokes.values[0]) ** 2 == pytest.approx(sum(b.count for b in blocks))

    @pytest.mark.parametrize("neurons", [None, 3])
    def test_rows_read_like_lines_of_text(self, neurons):
        graph, template, _ = deep()
        picture = compose(graph, template, max_neurons=neurons)
        assert picture.caption.endswith("rows go on like lines of text")
        sites = [p for p in picture.places if p.kind == "site"]
        for place in sites:  # by layer: from left to right, then the next row below
            row = number_of(picture.rows, place.along)
            assert place.x == pytest.approx(place.along + picture.rows[row].left)
            assert 0 < place.x < picture.width and 0 < place.y < picture.height
        bottoms = [
            max(p.y for p in sites if number_of(picture.rows, p.along) == n)
            for n in range(len(picture.rows))
        ]
        tops = [
            min(p.y for p in sites if number_of(picture.rows, p.along) == n)
            for n in range(len(picture.rows))
        ]
        assert all(bottom < top for bottom, top in zip(bottoms, tops[1:], strict=False))

    def test_edges_go_on_in_the_next_row(self):
        graph, template, _ = deep()
        picture = compose(graph, template)
        broken = 0
        for strokes in picture.strokes:
            paths = picture.paths(strokes)
            ends = picture.ends(strokes)
            first, last = (number_of(picture.rows, float(ends[0, side, 0])) for side in (0, 1))
            gaps = np.flatnonzero(np.isnan(paths[0, :, 0]))
            assert len(gaps) >= abs(last - first)
            broken += len(gaps)
            # leaves at a row's end, enters at the next one's beginning, on the ribbon at one place
            for gap in gaps:
                leaving, entering = paths[0, gap - 1], paths[0, gap + 1]
                assert entering[0] == pytest.approx(picture.rows[0].start)
                assert leaving[0] == pytest.approx(picture.rows[0].stop)
                shifts = {round(entering[1] - leaving[1] - (b.down - a.down), 6) for a, b in
                          zip(picture.rows, picture.rows[1:], strict=False)}  # fmt: skip
                assert 0 in shifts
        assert broken >= len(picture.rows) - 1

    def test_neurons_are_shown_when_asked_for(self):
        graph, template, _ = deep()
        picture = compose(graph, template, max_neurons=3)
        assert not picture.whole and picture.drawn > 0

    def test_a_picture_stays_within_what_programs_can_show(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_png, "_MAX_PIXELS", 3000)
        graph, template, _ = deep()
        draw(graph, template, tmp_path / "a.png", dpi=600)
        width, height = png_size(tmp_path / "a.png")
        assert 2500 < width <= 3000 and height > 100


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


class TestPng:
    @pytest.mark.parametrize("name", ["siren", "resnet", "grouped", "tied"])
    def test_has_the_size_of_the_picture_and_is_not_blank(self, name, tmp_path):
        graph, template = graph_of(name)
        picture = draw(graph, template, tmp_path / "a.png", title=f"{name} $x_{{$", dpi=80)
        width, height = png_size(tmp_path / "a.png")
        assert abs(width - 80 * max(picture.width, 6.5)) <= 1
        assert 80 * picture.height < height < 80 * (picture.height + 2.5)
        image = imread(tmp_path / "a.png")[..., :3]
        red = (image[..., 0] > image[..., 2] + 0.25).mean()
        blue = (image[..., 2] > image[..., 0] + 0.25).mean()
        assert red > 1e-3 and blue > 1e-3  # both signs
        assert image.mean() > 0.6
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

    def test_strong_edges_are_red_or_blue_by_sign(self, tmp_path):
        graph, template = graph_of("siren")
        for sign, channel in ((1, 0), (-1, 2)):
            graph.edge_attr = sign * graph.edge_attr.abs()
            draw(graph, template, tmp_path / "a.png", dpi=80)
            image = imread(tmp_path / "a.png")[
                60:-110, :, :3
            ]  # without the title, the legend and the colour bar
            other = 2 - channel
            assert (image[..., channel] > image[..., other] + 0.4).mean() > 5e-3
            assert (
                image[..., other] > image[..., channel] + 0.4
            ).mean() < 5e-4  # some label perhaps

    def test_a_failed_drawing_leaves_the_old_file(self, tmp_path):
        graph, _ = graph_of("siren")
        (tmp_path / "a.png").write_text("old")
        with pytest.raises(MetanetError):
            draw(graph, graph_of("mlp")[1], tmp_path / "a.png")
        assert (tmp_path / "a.png").read_text() == "old"


def page_data(path: Path) -> dict:
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.S
    )
    return json.loads(text)


class TestHtml:
    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_holds_the_picture_and_loads_nothing(self, name, tmp_path):
        graph, template = graph_of(name)
        picture = draw_html(graph, template, tmp_path / "a.html", title=name)
        text = (tmp_path / "a.html").read_text()
        assert not re.search(
            r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(|\bfetch\(|XMLHttp|import\(", text
        )
        data = page_data(tmp_path / "a.html")
        assert (data["title"], data["caption"]) == (name, picture.caption)
        assert len(data["ranges"]) == len(template.nodes) and len(data["spots"]) == len(
            picture.spots
        )
        assert sum(t["count"] for t in data["nodeTypes"].values()) == template.num_nodes
        assert sum(t["count"] for t in data["edgeTypes"].values()) == template.num_edges
        for strokes, own in zip(data["strokes"], picture.strokes, strict=True):
            assert strokes["ends"] == own.ends.tolist() and strokes["edges"] == own.edges.tolist()
            assert np.allclose(strokes["values"], own.values, rtol=1e-6)

    def test_names_cannot_break_out_of_the_data(self, tmp_path):
        graph, template = graph_of("mlp")
        title = "</script><script>alert(1)</script><!--"
        draw_html(graph, template, tmp_path / "a.html", title=title)
        assert "alert(1)</script>" not in (tmp_path / "a.html").read_text()
        assert page_data(tmp_path / "a.html")["title"] == title

    def test_nan_is_valid_json(self, tmp_path):
        graph, template = graph_of("siren")
        graph.edge_attr[:3, 0] = torch.tensor([float("nan"), float("inf"), -float("inf")])
        draw_html(graph, template, tmp_path / "a.html")
        values = [v for s in page_data(tmp_path / "a.html")["strokes"] for v in s["values"]]
        assert {v for v in values if isinstance(v, str)} == {"NaN", "Infinity", "-Infinity"}

    @pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
    @pytest.mark.parametrize("which", ["resnet", "deep"])
    def test_the_script_draws_and_tells_facts(self, which, tmp_path):
        graph, template = graph_of("resnet") if which == "resnet" else deep()[:2]
        picture = draw_html(graph, template, tmp_path / "a.html", title="net")
        scripts = re.findall(r"<script>(.*?)</script>", (tmp_path / "a.html").read_text(), re.S)
        data = json.dumps(page_data(tmp_path / "a.html"))
        (tmp_path / "page.js").write_text(
            STUB.replace("@DATA@", json.dumps(data)) + scripts[0] + PROBE
        )
        done = subprocess.run(["node", tmp_path / "page.js"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["strokes"] == sum(len(s.ends) for s in picture.strokes) == said["lines"]
        assert said["hit"] == {"spot": 0}
        first = template.nodes[int(picture.spots[0, 2])]
        assert said["node"].startswith(f"{first.name}\n") and f"layer {first.layer}" in said["node"]
        block = picture.block(picture.strokes[0])
        assert (
            block.tensor in said["edge"]
            and ("norm" if which == "deep" else "value") in said["edge"]
        )
        assert 0 < said["hidden"] < said["lines"]

    @pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
    def test_names_stand_at_fit_zoom_and_do_not_cover_each_other(self, tmp_path):
        graph, template, _ = deep()
        draw_html(graph, template, tmp_path / "a.html")
        scripts = re.findall(r"<script>(.*?)</script>", (tmp_path / "a.html").read_text(), re.S)
        data = json.dumps(page_data(tmp_path / "a.html"))
        probe = "console.log(JSON.stringify({ taken, rows: data.rows.length }));"
        (tmp_path / "page.js").write_text(
            STUB.replace("@DATA@", json.dumps(data)) + scripts[0] + probe
        )
        done = subprocess.run(["node", tmp_path / "page.js"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["rows"] > 1
        sites = sum(r.type not in (NodeType.BIAS, NodeType.SCALE) for r in template.nodes)
        assert len(said["taken"]) > sites / 2
        for one, other in itertools.combinations(said["taken"], 2):
            assert (
                one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            )


# As much of a browser as the page's script asks for.
STUB = """
const drawn = { lines: 0 }, nothing = () => {};
const stub = new Proxy({}, {
  get: (o, k) => k === "measureText" ? text => ({ width: 6 * text.length })
    : k === "stroke" ? () => { drawn.lines++; } : k in o ? o[k] : nothing,
  set: (o, k, v) => { o[k] = v; return true; },
});
const made = {};
const element = id => made[id] ??= {
  id, style: {}, classList: { add: nothing, remove: nothing }, append: nothing, addEventListener: nothing,
  getContext: () => stub, setPointerCapture: nothing, offsetWidth: 100, offsetHeight: 50,
  textContent: id === "data" ? @DATA@ : "",
};
let count = 0;
const document = { getElementById: element, createElement: tag => element(tag + count++), title: "" };
const innerWidth = 1200, innerHeight = 800, devicePixelRatio = 1;
const addEventListener = nothing, requestAnimationFrame = f => f();
"""
PROBE = """
data.ranges.forEach(r => { r.kind = "side"; });  // without frames, every line is an edge
drawn.lines = 0; draw();
const all = drawn.lines, first = edges[0].s.type, s = data.spots[0];
hidden.add(first); drawn.lines = 0; draw();
const fewer = drawn.lines;
hidden.clear();
console.log(JSON.stringify({
  strokes: edges.length, lines: all, hidden: fewer, node: facts({ spot: 0 }), edge: facts({ edge: edges[0] }),
  hit: find(s.x * view.zoom + view.x, s.y * view.zoom + view.y),
}));
"""
