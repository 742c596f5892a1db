"""Results beyond what their dtype can hold."""

import math

import pytest
import torch
from torch import nn

import metanet
from metanet.errors import CheckpointError, MetanetError
from metanet.merging import save_merged

NARROW = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
LARGE, LARGEST = torch.full((3,), 49152.0), 65504.0


def doubled(value, stored=torch.float16, **more):
    """Twice the value, merged."""
    models = [{"w": torch.as_tensor(value).to(stored)}] * 2
    return metanet.merge(models, normalize=False, **more)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_are_refused_by_name_and_number(dtype):
    end = torch.finfo(dtype).max
    merged = doubled(torch.tensor([0.6 * end, 1.0, -0.6 * end]), torch.float64, out_dtype=dtype)
    text = rf"w: 2 of 3 values beyond {dtype} \(up to .*\).* out_dtype=.* overflow=clip .* overflow=keep"
    with pytest.raises(MetanetError, match=text):
        merged["w"]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_what_fits_is_stored_as_it_was(dtype):
    """The largest number, and what rounds to it."""
    end = torch.finfo(dtype).max
    values = torch.tensor([end, -end, math.nextafter(end, math.inf), 1.0], dtype=torch.float64)
    merged = metanet.merge([{"w": values}] * 2, out_dtype=dtype)["w"]
    assert torch.equal(merged.double(), torch.tensor([end, -end, end, 1.0], dtype=torch.float64))


def test_may_be_clipped_or_kept():
    clipped, kept = doubled(LARGE, overflow="clip"), doubled(-LARGE, overflow="keep")
    assert clipped["w"].tolist() == [LARGEST] * 3
    assert (
        clipped.report["overflow/w"]
        == "3 of 3 values beyond torch.float16 (up to 98304), stored as its largest"
    )
    assert kept["w"].tolist() == [-math.inf] * 3
    assert (
        kept.report["overflow/w"]
        == "3 of 3 values beyond torch.float16 (up to 98304), stored as infinity"
    )
    assert doubled(torch.ones(2), overflow="keep").report == {}
    with pytest.raises(MetanetError, match="overflow='ignore': give one of error, clip, keep"):
        doubled(LARGE, overflow="ignore")


def test_a_wider_dtype_helps():
    assert doubled(LARGE, out_dtype="bfloat16")["w"].tolist() == [98304.0] * 3
    assert doubled(LARGE, out_dtype="float32")["w"].tolist() == [98304.0] * 3


def test_tensors_that_are_taken():
    models = [{"w": torch.ones(2, dtype=torch.float16)}, {"w": torch.tensor([1e5, 1.0]).bfloat16()}]
    taken = metanet.merge(models, out_dtype="float16", overrides={"w": {"take": 1}})
    with pytest.raises(MetanetError, match="w: 1 of 2 values beyond torch.float16"):
        taken["w"]


def test_infinity_of_an_input_is_another_matter():
    """What was stored so stays so where it is taken; where it is merged, the input is named."""
    models = [{"w": torch.ones(2, dtype=torch.float16)}, {"w": torch.tensor([math.inf, 1.0])}]
    assert metanet.merge(models, out_dtype="float16", overrides={"w": {"take": 1}})[
        "w"
    ].tolist() == [math.inf, 1.0]
    with pytest.raises(CheckpointError, match="checkpoint 'model 1': w has NaN or infinite values"):
        metanet.merge(models)["w"]


def test_complex_parts():
    value = torch.complex(torch.tensor([3e38]), torch.tensor([1.0])).to(torch.complex64)
    merged = metanet.merge([{"w": value}] * 2, normalize=False, dtype="float64")
    with pytest.raises(MetanetError, match="w: 1 of 2 values beyond torch.float32"):
        merged["w"]


def test_nothing_is_written(tmp_path):
    merged = doubled(LARGE)
    with pytest.raises(MetanetError, match="w: 3 of 3 values beyond"):
        save_merged(tmp_path / "out", merged, recipe=merged.recipe)
    with pytest.raises(MetanetError, match="w: 3 of 3 values beyond"):
        metanet.save_checkpoint(tmp_path / "out.safetensors", merged)
    assert list(tmp_path.iterdir()) == []


def test_empty_tensors():
    assert doubled(torch.zeros(0, 3))["w"].shape == (0, 3)


def test_repaired_statistics():
    """Measured variances may lie beyond float16, too."""
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = {n: t.half() if t.is_floating_point() else t for n, t in net.state_dict().items()}
    data = [
        (1e4 * torch.randn(32, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(32, 3))
    ]
    merged = metanet.merge([state, state], model=net, data=data, repair="bn_reset")
    assert torch.equal(merged["0.weight"], state["0.weight"])
    with pytest.raises(MetanetError, match=r"1.running_var: . of 3 values beyond torch.float16"):
        merged["1.running_var"]
    clipped = metanet.merge(
        [state, state], model=net, data=data, repair="bn_reset", overflow="clip"
    )
    assert clipped["1.running_var"].max() == LARGEST and "overflow/1.running_var" in clipped.report
