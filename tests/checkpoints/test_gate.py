"""What holds no plain weights is refused by its form, whatever it is read for and wherever it is
stored."""

import json

import pytest
import torch
from torch import nn

import metanet
from metanet import cli
from metanet.checkpoints import check_plain
from metanet.errors import CheckpointError

FP8 = torch.float8_e4m3fn
ROWS = torch.ones(4, 4)


def narrow(dtype=torch.int8, *shape):
    return torch.zeros(shape or (4, 4), dtype=dtype)


QUANTISED = {
    "fp8 by blocks": {"l.weight": ROWS.to(FP8), "l.weight_scale_inv": torch.ones(1, 1)},
    "fp8 by tensor": {"l.weight": ROWS.to(torch.float8_e5m2), "l.weight_scale": torch.ones(())},
    "fp8 at the root": {"weight": ROWS.to(FP8), "scale": torch.ones(())},
    "fp8 of experts": {"e.gate_up_proj": ROWS.to(FP8), "e.gate_up_proj_scale_inv": torch.ones(1, 1)},
    "fp8 of image networks": {"l.weight": ROWS.to(FP8), "l.scale_weight": torch.ones(())},
    "int8": {"l.weight": narrow(), "l.weight_scale": torch.ones(4, 1)},
    "int8 of bitsandbytes": {"l.weight": narrow(), "l.SCB": torch.ones(4)},
    "nf4": {"l.weight": narrow(torch.uint8, 8, 1), "l.weight.absmax": torch.ones(1)},
    "nf4, its map": {"l.weight": narrow(torch.uint8, 8, 1), "l.weight.quant_map": torch.ones(16)},
    "GPTQ": {"l.qweight": narrow(torch.int32), "l.qzeros": narrow(torch.int32), "l.scales": ROWS.half()},
    "compressed-tensors": {"l.weight_packed": narrow(torch.int32), "l.weight_scale": ROWS},
    "nvfp4": {"l.weight": narrow(torch.uint8), "l.weight_scale": ROWS.to(FP8),
        "l.weight_scale_2": torch.ones(())},
    "mxfp4": {"e.down_proj_blocks": narrow(torch.uint8), "e.down_proj_scales": narrow(torch.uint8)},
    "HQQ": {"l.W_q": narrow(torch.uint8), "l.scale": ROWS, "l.zero": ROWS},
    "torchao": {"l._weight_qdata": narrow(), "l._weight_scale": ROWS},
    "quanto": {"l.weight._data": narrow(), "l.weight._scale": ROWS},
}  # fmt: skip
LORA = {
    "base_model.model.l.lora_A.weight": torch.ones(2, 4),
    "base_model.model.l.lora_B.weight": torch.ones(4, 2),
}
ADAPTERS = {
    "LoRA": LORA,
    "LoRA of embeddings": {
        "e.lora_embedding_A": torch.ones(2, 4),
        "e.lora_embedding_B": torch.ones(4, 2),
    },
    "LoRA of kohya": {
        "lora_unet_q.lora_down.weight": torch.ones(2, 4),
        "lora_unet_q.alpha": torch.tensor(1.0),
    },
    "LoRA of diffusers": {
        "unet.q.lora.down.weight": torch.ones(2, 4),
        "unet.q.lora.up.weight": torch.ones(4, 2),
    },
    "IA3": {"base_model.model.k.ia3_l": torch.ones(4, 1)},
    "LoHa": {"l.hada_w1_a": torch.ones(4, 2), "l.hada_w1_b": torch.ones(2, 4)},
    "LoKr": {"l.lokr_w1": torch.ones(2, 2), "l.lokr_w2_a": torch.ones(2, 2)},
}
PLAIN = {
    "fp8 without scales": {"l.weight": ROWS.to(FP8), "l.bias": torch.ones(4).to(FP8)},
    "a network cast to fp8": {"n.weight": torch.ones(4).to(FP8), "n.scale": torch.ones(4).to(FP8)},
    "a scale of its own": {"attn.relative_position_index": narrow(torch.int64),
        "attn.logit_scale": torch.ones(4)},
    "scales and zeros of floats": {"l.weight": ROWS, "l.scale": torch.ones(4), "l.zeros": ROWS,
        "l.scales": ROWS},
    "counters": {"bn.weight": torch.ones(4), "bn.num_batches_tracked": torch.tensor(3)},
    "complex": {"l.weight": ROWS.to(torch.complex64), "l.weight_scale": torch.ones(4)},
    "names that only look alike": {"flora_A.weight": ROWS, "memory_blocks": ROWS, "codes": torch.arange(4)},
}  # fmt: skip


def message(given, **more):
    with pytest.raises(CheckpointError) as info:
        check_plain(given, **more)
    assert len(str(info.value)) < 1000
    return str(info.value)


@pytest.mark.parametrize("given", QUANTISED.values(), ids=QUANTISED)
def test_quantised_weights(given):
    text = message(given)
    assert (
        "is quantised (" in text
        and any(name in text for name in given)
        and "dequantise it first" in text
    )
    first, *others = given.items()
    assert message(dict([*others, first])) != ""  # in whatever order they stand


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_integers_of_pytorch():
    assert "l.weight is torch.qint8" in message(
        {"l.weight": torch.quantize_per_tensor(ROWS, 0.1, 0, torch.qint8)}
    )


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(name):
    text = message(ADAPTERS[name])
    assert (
        f": {name.split()[0]})" in text
        and "is an adapter (" in text
        and "merge_and_unload()" in text
    )


@pytest.mark.parametrize("given", PLAIN.values(), ids=PLAIN)
def test_plain_weights(given):
    check_plain(given, averaged=True)


WHOLE = {
    "l.base_layer.weight": ROWS,
    "l.lora_A.weight": torch.ones(2, 4),
    "l.lora_B.weight": torch.ones(4, 2),
}


class TestAdaptersInsideANetwork:
    def test_are_refused_by_name(self):
        assert "has adapters inside (l.lora_A.weight, ...: LoRA)" in message(WHOLE)

    def test_of_a_network_that_has_them_may_be_moved_but_not_averaged(self):
        check_plain(WHOLE, network=WHOLE)
        assert "LoRA" in message(WHOLE, network=WHOLE, averaged=True)

    def test_may_be_taken(self):
        check_plain(WHOLE, averaged=True, taken=["*lora_*"])
        merged = metanet.merge([WHOLE, WHOLE], overrides={"*lora_*": {"take": 0}})
        assert torch.equal(merged["l.lora_A.weight"], torch.ones(2, 4))


class TestBeside:
    """A configuration beside the file says what the names don't."""

    @pytest.mark.parametrize(
        "part", [lambda told: told, lambda told: {"text_config": told}], ids=["top", "nested"]
    )
    def test_a_quantization_config(self, part, tmp_path):
        metanet.save_checkpoint(tmp_path, {"l.weight": ROWS})
        config = part({"quantization_config": {"quant_method": "bitnet"}})
        (tmp_path / "config.json").write_text(json.dumps(config))
        for place in (tmp_path, tmp_path / "model.safetensors"):
            assert "is quantised (bitnet, says its config.json)" in message(
                metanet.load_checkpoint(place)
            )

    def test_an_adapter_config(self, tmp_path):
        metanet.save_checkpoint(tmp_path / "adapter_model.safetensors", {"strange": ROWS})
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "XYZ"}')
        assert "is an adapter (XYZ)" in message(metanet.load_checkpoint(tmp_path))


def stored(kind, state, folder):
    """A checkpoint in some container: its path, or what stands for it."""
    if kind == "state dict":
        return state
    if kind == "torch file":
        torch.save({"state_dict": state}, folder / "x.pt")
        return folder / "x.pt"
    if kind == "shards":
        metanet.save_checkpoint(folder, state, max_shard_size=20)
        return folder
    metanet.save_checkpoint(folder / "x.safetensors", state)
    return folder / "x.safetensors"


@pytest.mark.parametrize("kind", ["state dict", "torch file", "shards", "file"])
@pytest.mark.parametrize("state", [QUANTISED["fp8 by blocks"], LORA], ids=["fp8", "LoRA"])
def test_every_container_and_every_call(kind, state, tmp_path):
    """What one refuses all refuse, in the same words."""
    given = stored(kind, {**state, "m.bias": torch.ones(3)}, tmp_path)
    opened = given if isinstance(given, dict) else metanet.load_checkpoint(given)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    arch, data = metanet.trace(net, torch.ones(3, 4)), [(torch.ones(3, 4), torch.zeros(3, 2))]
    word = "LoRA" if state is LORA else "is quantised"
    for call in (
        lambda: metanet.merge([given, given]),
        lambda: metanet.merge([net, net], "task_arithmetic", base=given),
        lambda: metanet.merge([given, given], model=net),
        lambda: metanet.align(opened, to=net, arch=arch),
        lambda: metanet.align(net, to=opened, arch=arch),
        lambda: metanet.to_graph(opened, arch),
        lambda: metanet.to_graph([net.state_dict(), opened], arch),
        lambda: metanet.barrier(net, opened, model=net, data=data),
    ):
        with pytest.raises(CheckpointError, match=word):
            call()


@pytest.mark.parametrize("state", [QUANTISED["fp8 by blocks"], LORA], ids=["fp8", "LoRA"])
def test_every_command(state, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gate_networks.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Linear(4, 4)\n"
        "def data():\n    return [(torch.ones(2, 4), torch.ones(2, 4))]\n"
    )
    metanet.save_checkpoint("x.safetensors", state)
    of = ["arch=gate_networks:net", "input_shape=[4]", "out=out"]
    commands = [
        ["merge", "models=[x.safetensors,x.safetensors]", "out=out"],
        ["merge", "models=[x.safetensors,x.safetensors]", "matcher=weight", *of],
        ["align", "a=x.safetensors", "b=x.safetensors", *of],
        ["graph", "checkpoint=x.safetensors", *of],
        [
            "barrier",
            "a=x.safetensors",
            "b=x.safetensors",
            *of[:2],
            "data=gate_networks:data",
            "logger=none",
        ],
    ]
    for command in commands:
        assert cli.main(command) == 1
        assert ("LoRA" if state is LORA else "is quantised") in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
