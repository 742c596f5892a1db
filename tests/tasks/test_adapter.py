"""Models that are no modules: a run asks nothing else of them than of those trained by gradients."""

import copy
import pickle

import pytest
import torch

from metanet.errors import MetanetError
from metanet.nn import MODELS, Metanet, register
from metanet.tasks import AccuracyPrediction
from metanet.tasks._evaluate import relabelled_batch
from metanet.zoo import DigitsClassifiers

from .conftest import TINY


@pytest.fixture
def average():
    """A metanetwork that answers the mean of all targets it has seen."""

    @register("average")
    class Average(Metanet):
        def __init__(self, out_dim: int = 1) -> None:
            self.mean = torch.zeros(out_dim)

        def fit(self, graphs, targets):
            self.mean = targets.reshape(len(targets), -1).mean(0)

        def predict(self, graphs):
            return self.mean.expand(sum(map(len, graphs)), -1)

        def tensors(self):
            return {"mean": self.mean}

        def load_tensors(self, tensors):
            self.mean = tensors["mean"]

    yield Average
    MODELS.remove("average")


def test_it_is_trained_evaluated_and_saved(run, average):
    folder, metrics = run("model=stat", "~model", "+model={name: average}")
    assert metrics["parameters"] == metrics["epochs"] == 0
    assert metrics["relabelled/largest_change"] == 0
    assert (folder / "model/model.json").is_file()


def test_a_model_that_can_not_learn_is_told(run, average, monkeypatch):
    monkeypatch.delattr(average, "fit")
    with pytest.raises(MetanetError, match=r"model 'average' can't be trained: derive it from"):
        run("model=stat", "~model", "+model={name: average}")


@pytest.mark.parametrize("send", [copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
def test_a_batch_from_a_worker_is_relabelled_like_any_other(tiny_data, send):
    zoo = DigitsClassifiers(**TINY, root=str(tiny_data)).load(progress=False)
    data = AccuracyPrediction(batch_size=8).data(zoo, 0)
    batch = data.batch(torch.arange(0, 24, 5))
    moved = [
        relabelled_batch(given, data, torch.Generator().manual_seed(0))
        for given in (batch, send(batch))
    ]
    pairs = zip(moved[0].stacks, moved[1].stacks, strict=True)
    assert all(torch.equal(one.edge_attr, other.edge_attr) for one, other in pairs)
    assert batch.names == ("cnn4_gelu", "cnn3_relu", "mlp2_tanh")
