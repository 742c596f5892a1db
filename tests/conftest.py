"""What all tests share: a quiet, offline, seeded, two-thread environment, and the marks that
skip."""

import os

# Before torch is imported: spinning OpenMP threads make a busy 2-core machine up to 75 times
# slower.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["WANDB_MODE"] = "disabled"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"

import logging
import random
import tempfile

import jaxtyping
import numpy as np
import pytest
import torch

# What tests trust is no matter of the person who runs them.
os.environ["METANET_STATE"] = tempfile.mkdtemp(prefix="metanet-state-")

# With METANET_TYPED=1, and before the package is imported: whenever its functions are called, the
# shapes, dtypes and types of their annotations are checked. It takes several times as long. Tests
# marked "untyped" pass wrong ones on purpose.
if os.environ.get("METANET_TYPED") == "1":
    jaxtyping.install_import_hook("metanet", "annotations.checked")

from metanet.sources import import_torchvision

# Before timm, transformers and lightning import it: its compiled part may be of another build than
# PyTorch.
import_torchvision()

# With pytest-xdist every worker has the machine's cores to share.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")
    parser.addoption("--network", action="store_true", help="run the tests marked network too")


def pytest_collection_modifyitems(config, items):
    skips = {
        "slow": (not config.getoption("--slow"), "slow: runs with --slow"),
        "network": (not config.getoption("--network"), "needs the internet: runs with --network"),
        "gpu": (not torch.cuda.is_available(), "needs CUDA"),
    }
    for item in items:
        for mark, (skip, reason) in skips.items():
            if skip and mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logging_as_before():
    """Commands set up logging for their process; a test must not hand its log file and captured
    stdout to the next."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)
        handler.close()
    for handler in [each for each in handlers if each not in root.handlers]:
        root.addHandler(handler)
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _types(request):
    """Annotations are checked, except in tests marked ``untyped``."""
    jaxtyping.config.update("jaxtyping_disable", bool(request.node.get_closest_marker("untyped")))
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
