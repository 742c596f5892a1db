"""What a run leaves in its directory, and who may hear of it."""

import json
import math

import pytest

from metanet.errors import MetanetError
from metanet.runs import METRICS_FILE, check_login, write_metrics


def test_metrics_hold_whatever_was_measured(tmp_path):
    numbers = {"loss": 0.5, "seen": {"tau": 0.25}, "diverged": math.inf}
    write_metrics(tmp_path, numbers)
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == numbers
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_FILE]


@pytest.mark.parametrize("settings", [{}, {"mode": "offline"}, {"mode": "disabled"}])
def test_nobody_need_log_in_to_stay_offline(settings):
    check_login(settings)


def test_online_runs_need_a_login(monkeypatch):
    import wandb

    monkeypatch.setattr(type(wandb.api), "api_key", None, raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(MetanetError, match="run `wandb login`, or keep the default, offline"):
        check_login({"mode": "online"})
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_login({"mode": "online"})
