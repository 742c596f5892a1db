"""timm:NAME: which networks there are, how they are made, and what is said of others."""

import pytest
import torch

from metanet.errors import MetanetError
from metanet.sources import import_torchvision, load_factory, load_source

import_torchvision()
pytest.importorskip("timm")


def test_makes_a_network_with_random_weights_and_its_arguments():
    one, other = (
        load_source("timm:test_resnet", num_classes=3),
        load_source("timm:test_resnet", num_classes=3),
    )
    assert one.fc.weight.shape == (3, 96)
    assert not torch.equal(one.fc.weight, other.fc.weight)


def test_a_tag_chooses_the_configuration():
    assert (
        load_source("timm:test_resnet.r160_in1k", device="meta").pretrained_cfg["tag"]
        == "r160_in1k"
    )


def test_without_memory():
    assert all(
        p.is_meta for p in load_source("timm:vit_giant_patch14_224", device="meta").parameters()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet5",
            r"timm:resnet5: timm 1\.\S+ has no network 'resnet5'. Did you mean resnet50 or ",
        ),
        ("zzzzzzzzz", r"has no network 'zzzzzzzzz'. It has \d{4}, among them "),
        ("test_resnet.a1", r"timm:test_resnet.a1: test_resnet has no tag 'a1'; it has r160_in1k"),
        ("hf-hub:timm/resnet18", "has no network 'hf-hub:timm/resnet18'"),
    ],
)
def test_says_what_is_wrong_with_a_name(name, message):
    with pytest.raises(MetanetError, match=message):
        load_factory(f"timm:{name}")


def test_says_what_is_wrong_with_the_arguments():
    with pytest.raises(
        MetanetError, match=r"timm:test_resnet doesn't take arch_args.widht: .*'widht'\.$"
    ):
        load_source("timm:test_resnet", widht=3)
    with pytest.raises(
        MetanetError, match=r"timm:test_resnet has random weights here: remove arch_args.pretrained"
    ):
        load_source("timm:test_resnet", pretrained=True)
