"""The configurations of zoos."""

import pytest
from hydra import compose, initialize_config_dir

from metanet.config import build, conf_dir
from metanet.zoo import DigitsClassifiers, FolderZoo, MnistSirens


def configured(name, *overrides):
    with initialize_config_dir(str(conf_dir() / "zoo"), version_base="1.3"):
        return build(compose(name, overrides=list(overrides)))


def test_defaults_are_the_same_in_code_and_configuration():
    assert configured("digits_classifiers").recipe() == DigitsClassifiers().recipe()
    assert configured("mnist_sirens").recipe() == MnistSirens().recipe()


def test_tiny():
    tiny = configured("digits_tiny")
    assert tiny.networks == 24 and tiny.epochs == 2 and "cnn4_gelu" in tiny.architectures


def test_small_sirens():
    small = configured("mnist_sirens_small")
    assert isinstance(small, MnistSirens)
    assert (small.size, list(small.hidden), small.fits, small.steps, small.lr) == (
        14,
        [16, 16],
        8,
        60,
        1e-2,
    )


def test_folder():
    zoo = configured(
        "folder", "path=a", "table=b.csv", "label=c", "input_shape=[2]", "+arch_args.widths=[3]"
    )
    assert zoo == FolderZoo(
        path="a", table="b.csv", label="c", input_shape=[2], arch_args={"widths": [3]}
    )
    with pytest.raises(Exception, match="label"):
        configured("folder", "path=a", "table=b.csv", "input_shape=[2]")
