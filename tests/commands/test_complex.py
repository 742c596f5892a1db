"""Every command reads and writes checkpoints with complex tensors, and loses no imaginary part."""

import json
import re
from pathlib import Path

import pytest
import torch

import metanet
from metanet import cli
from metanet.sources import load_source
from metanet.testing import random_values

NETWORK = """
import torch
from torch import nn

class Operator(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Conv1d(3, 6, 1), nn.Conv1d(5, 2, 1)
        self.gain = nn.Parameter(torch.ones(6, 1, dtype=torch.cfloat))
        self.w = nn.Parameter(torch.randn(6, 5, 4, dtype=torch.cfloat))
        self.example_inputs, self.check_inputs = torch.randn(2, 3, 8), torch.randn(3, 3, 12)

    def forward(self, x):
        modes = torch.einsum("bix,iox->box", torch.fft.rfft(self.inp(x))[..., :4] * self.gain, self.w)
        return self.out(torch.fft.irfft(modes, n=x.shape[-1])).mean(-1)
"""


@pytest.fixture
def run(calls, capsys, tmp_path, monkeypatch):
    """Run a command beside a checkpoint and its relabelling: ``run("align", "out=...")`` -> output,
    the checkpoint."""
    module = f"complex_{re.sub('[^a-z0-9]', '_', tmp_path.name)}"
    Path(f"{module}.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(Path.cwd())
    network = load_source(f"{module}:Operator")
    arch = metanet.trace(network, network.example_inputs)
    a = random_values(arch, torch.Generator().manual_seed(0))
    a["gain"] = a["gain"].imag * 1j  # nothing is left of it without its imaginary part
    metanet.save_checkpoint("a.safetensors", a)
    torch.save(arch.spec.sample(torch.Generator().manual_seed(1))(a), "b.pt")

    def run(command, *args):
        code = cli.main([command, f"arch={module}:Operator", *args])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out, a

    return run


def test_align(run):
    _, a = run("align", "a=a.safetensors", "b=b.pt", "out=out")
    moved = metanet.load_checkpoint("out/model.safetensors")
    assert all(torch.equal(moved[n], t) for n, t in a.items())
    numbers = json.loads(Path("out/metrics.json").read_text())
    b = torch.load("b.pt", weights_only=True)
    parts = (
        torch.view_as_real(a[n] - b[n]) if t.is_complex() else a[n] - b[n] for n, t in a.items()
    )
    assert numbers["distance/before"] == pytest.approx(
        sum(float(p.square().sum()) for p in parts) ** 0.5, rel=1e-5
    )
    assert numbers["distance/after"] == 0


def test_merge(run):
    _, a = run("merge", "models=[a.safetensors,b.pt]", "matcher=weight", "out=out")
    merged = metanet.load_checkpoint("out")
    assert all(torch.equal(merged[n], t) for n, t in a.items())


def test_barrier(run):
    generator = torch.Generator().manual_seed(2)
    data = {"inputs": torch.randn(16, 3, 8, generator=generator), "targets": torch.arange(16) % 2}
    metanet.save_checkpoint("data.safetensors", data)
    out, _ = run(
        "barrier",
        "a=a.safetensors",
        "b=b.pt",
        "data=data.safetensors",
        "matcher=weight",
        "points=3",
    )
    assert "barrier" in out


def test_graph(run):
    out, a = run("graph", "checkpoint=a.safetensors", "out=out")
    graph, template = metanet.graph.load_graph("out/graph.safetensors")
    assert all(torch.equal(t, a[n]) for n, t in metanet.graph.read(template, graph).items())
    row = next(line.split() for line in out.splitlines() if line.startswith("gain"))
    assert row[1:4] == ["6x1", "complex64", "scale"]
    assert float(row[-2]) == pytest.approx(
        torch.view_as_real(a["gain"]).square().mean().sqrt().item(), rel=1e-2
    )


def test_inspect(run):
    out, _ = run("inspect")
    assert "w           inp[6]  w[5]  4" in out
    assert out.count("ok: legal change") == 2
