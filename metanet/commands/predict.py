"""The command ``predict``: a trained metanetwork is asked about a checkpoint."""

from typing import Any


def predict(cfg: Any) -> Any:
    """Predict for one network what a run's metanetwork was trained to predict, and print it.

    Args:
        cfg: the composed ``conf/predict.yaml``.

    Returns:
        The prediction in words.

    Raises:
        MetanetError: the run has no saved model, or the checkpoint does not fit.
        TrustError: the run's files name code of their author, and nobody trusts their folder.
    """
    from ..tasks import predict as run  # here, since it imports lightning

    return run(cfg)
