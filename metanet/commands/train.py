"""The command ``train``: a metanetwork learns from a zoo of networks."""

from typing import Any


def train(cfg: Any) -> Any:
    """Train a metanetwork as configured, and leave everything in the run directory.

    Args:
        cfg: the composed ``conf/train.yaml``.

    Returns:
        The test metric that sweepers optimise (largest is best).

    Raises:
        MetanetError: a configuration that cannot work, with what is allowed.
    """
    from ..tasks import train as run  # here, since it imports lightning

    return run(cfg)
