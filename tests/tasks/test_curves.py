"""The loss curve, and ink that can be read on any colour."""

import pytest

from metanet.tasks._curves import draw_epochs, read_epochs
from metanet.tasks.inr_classification import readable_on


def write(folder, part, text):
    path = folder / f"csv/version_{part}/metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.fixture
def resumed(tmp_path):
    """A run of two epochs that was stopped, and went on after the first."""
    write(
        tmp_path,
        0,
        "epoch,step,train/loss,val/loss,val/tau\n0,3,,1.5,0.1\n0,3,2.0,,\n1,6,,9,0.9\n1,6,9,,\n",
    )
    write(
        tmp_path,
        1,
        "epoch,step,train/loss,val/loss,val/tau\n1,6,,1.0,0.4\n1,6,1.25,,\n2,9,,1.1,0.3\n,9,,,\n",
    )
    return tmp_path


def test_what_a_resumed_run_did_last_counts(resumed):
    assert read_epochs(resumed) == {
        "train/loss": {0: 2.0, 1: 1.25},
        "val/loss": {0: 1.5, 1: 1.0, 2: 1.1},
        "val/tau": {0: 0.1, 1: 0.4, 2: 0.3},
    }


def test_parts_are_ordered_by_number(tmp_path):
    for part in (10, 9):
        write(tmp_path, part, f"epoch,train/loss\n0,{part}\n")
    assert read_epochs(tmp_path) == {"train/loss": {0: 10.0}}


def test_both_losses_and_the_metric_are_drawn(resumed):
    above, below = draw_epochs(resumed, "val/tau")["loss"].axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in above.lines}
    assert drawn == {"train/loss": [2.0, 1.25], "val/loss": [1.5, 1.0, 1.1]}
    assert list(below.lines[0].get_ydata()) == [0.1, 0.4, 0.3]
    assert below.get_title() == "best: 0.4000 in epoch 1"


def test_models_without_epochs_have_none(tmp_path):
    assert draw_epochs(tmp_path, "val/tau") == {}


@pytest.mark.parametrize(
    ("colour", "ink"),
    [
        ((1, 1, 0), "black"),
        ((1, 1, 1), "black"),
        (
            (0.99, 0.91, 0.14),
            "black",
        ),  # the bright end of viridis, on which white could not be read
        ((0, 0, 0), "white"),
        ((0.27, 0.0, 0.33), "white"),
        ((0, 0, 1), "white"),
    ],
)
def test_ink_stands_out(colour, ink):
    assert readable_on((*colour, 1.0)) == ink
