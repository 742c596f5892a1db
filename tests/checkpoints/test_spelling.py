"""Names that wrappers and reparametrisations put into a checkpoint, or into a network."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from metanet.checkpoints import load_checkpoint
from metanet.errors import CheckpointError


def opened(state, folder, **kwargs):
    torch.save(dict(state), folder / "x.pt")
    return load_checkpoint(folder / "x.pt", **kwargs)


def assert_fits(checkpoint, state):
    assert list(checkpoint) == list(state)
    for name, tensor in state.items():
        assert torch.equal(checkpoint[name], tensor), name


def network():
    torch.manual_seed(1)
    inner = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    return nn.ModuleDict({"encoder": inner, "head": nn.Linear(3, 2)})


WRAPPED = {
    "FSDP": lambda name: "_fsdp_wrapped_module." + name.replace(".", "._fsdp_wrapped_module.", 1),
    "FSDP of torch.compile": lambda name: "_fsdp_wrapped_module._orig_mod." + name,
    "Lightning": lambda name: "_forward_module." + name,
    "Lightning and FSDP": lambda name: "_forward_module._fsdp_wrapped_module." + name,
    "activation checkpointing": lambda name: name.replace(
        "encoder.", "encoder._checkpoint_wrapped_module."
    ),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_unmistakable_wrappers_come_off_when_the_file_is_opened(wrap, tmp_path):
    state = network().state_dict()
    wrapped = {wrap(name): tensor for name, tensor in state.items()}
    assert set(wrapped) != set(state)
    assert_fits(opened(wrapped, tmp_path), state)
    assert list(opened(wrapped, tmp_path, unwrap=False)) == list(wrapped)


def test_torchs_own_wrapper_is_one_of_them(tmp_path):
    model = network()
    state = model.state_dict()
    model["encoder"] = checkpoint_wrapper(model["encoder"])
    names = [name for name, _ in model.named_parameters()]
    assert any("_checkpoint_wrapped_module" in name for name in names)
    wrapped = dict(zip(names, model.parameters(), strict=True))
    plain = dict(model.named_parameters())
    assert_fits(opened(wrapped, tmp_path).fit(plain), plain)
    assert set(opened(dict(model.named_parameters()), tmp_path)) <= set(state)


def test_a_name_that_only_looks_like_a_wrappers_stays(tmp_path):
    state = {"my_orig_mod.weight": torch.ones(2), "a_forward_module.weight": torch.zeros(2)}
    assert list(opened(state, tmp_path)) == list(state)


@pytest.mark.parametrize("outside", ["", "model.", "module."])
def test_data_parallel_inside_a_network(outside, tmp_path):
    state = network().state_dict()
    stored = {
        outside + name.replace("encoder.", "encoder.module."): tensor
        for name, tensor in state.items()
    }
    assert_fits(opened(stored, tmp_path).fit(state), state)


def test_data_parallel_inside_the_network_and_not_in_the_file(tmp_path):
    state = network().state_dict()
    expected = {
        name.replace("encoder.", "encoder.module."): tensor for name, tensor in state.items()
    }
    assert_fits(opened(state, tmp_path).fit(expected), expected)


def test_a_networks_own_module_named_module_is_left(tmp_path):
    state = {"encoder.module.weight": torch.ones(2), "encoder.weight": torch.zeros(2)}
    assert_fits(opened(state, tmp_path).fit(state), state)
    with pytest.raises(CheckpointError, match="missing     encoder.bias"):
        opened(state, tmp_path).fit(
            {"encoder.weight": torch.ones(2), "encoder.bias": torch.ones(2)}
        )


def test_one_of_several_parts_by_its_prefix(tmp_path):
    state = network().state_dict()
    stored = {
        f"{who}.{name.replace('encoder.', 'encoder.module.')}": tensor + (who == "teacher")
        for who in ("student", "teacher")
        for name, tensor in state.items()
    }
    fitted = opened(stored, tmp_path).fit(state, prefix="teacher.")
    assert_fits(fitted, {name: tensor + 1 for name, tensor in state.items()})


NORMS = {
    "weight norm": (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm),
    "spectral norm": (nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated.*:FutureWarning")
@pytest.mark.parametrize("norms", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize(
    "layer", [lambda: nn.Linear(4, 3), lambda: nn.Conv2d(4, 3, 3)], ids=["linear", "conv"]
)
def test_old_and_new_reparametrisations_are_the_same_tensors(norms, layer, tmp_path):
    torch.manual_seed(0)
    old, new = (nn.Sequential(norm(layer()), nn.ReLU()) for norm in norms)
    assert set(old.state_dict()) != set(new.state_dict())
    fitted = opened(old.state_dict(), tmp_path).fit(new.state_dict())
    new.load_state_dict(fitted)
    inputs = torch.randn(2, 4) if isinstance(old[0], nn.Linear) else torch.randn(2, 4, 5, 5)
    assert torch.equal(old.eval()(inputs), new.eval()(inputs))
    back = opened(new.state_dict(), tmp_path).fit(old.state_dict())
    assert_fits(back, old.state_dict())


def test_one_half_of_a_weight_norm_is_no_weight_norm(tmp_path):
    stored = {"l.weight_g": torch.ones(3, 1), "l.bias": torch.ones(3)}
    expected = {"l.parametrizations.weight.original0": torch.ones(3, 1), "l.bias": torch.ones(3)}
    with pytest.raises(CheckpointError, match="missing     l.parametrizations.weight.original0"):
        opened(stored, tmp_path).fit(expected)


def test_a_model_around_which_an_adapter_was(tmp_path):
    state = network().state_dict()
    stored = {
        "base_model.model."
        + name.replace("head.", "head.base_layer.").replace("0.weight", "0.base_layer.weight"): t
        for name, t in state.items()
    }
    assert_fits(opened(stored, tmp_path).fit(state), state)
    whole = {
        "base_model.model." + name.replace("head.", "head.modules_to_save.default."): t
        for name, t in state.items()
    }
    assert_fits(opened(whole, tmp_path).fit(state), state)


def test_an_adapter_that_is_not_merged_is_named(tmp_path):
    state = network().state_dict()
    stored = {
        "base_model.model." + name.replace("head.", "head.base_layer."): t
        for name, t in state.items()
    }
    stored["base_model.model.head.lora_A.default.weight"] = torch.ones(2, 3)
    stored["base_model.model.head.lora_B.default.weight"] = torch.ones(2, 2)
    with pytest.raises(CheckpointError, match=r"of an adapter \(LoRA\); .*merge_and_unload"):
        opened(stored, tmp_path).fit(state)
