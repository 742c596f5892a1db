"""Progress: a bar for who watches, lines for logs, silence on request."""

import sys

import pytest

from metanet import progress
from metanet.progress import Bar, Lines, track


@pytest.fixture
def seconds(monkeypatch):
    """A clock that is set by hand."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return clock


def test_a_line_whenever_some_seconds_have_passed(seconds, capsys):
    for number in track(range(7), "training", unit="epochs"):
        seconds[0] += 4
        assert number < 7
    err = capsys.readouterr().err
    assert err.splitlines() == ["training: 3/7 epochs, 12 s", "training: 6/7 epochs, 24 s"]


def test_nothing_that_is_quick_says_anything(seconds, capsys):
    assert list(track("abc", "quick")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_numbers_and_sizes(seconds, capsys):
    with track(what="merge", total=5_000_000_000, initial=500, unit="B", scaled=True) as bar:
        bar.tell({"train/loss": "0.21"})
        seconds[0] += 10
        bar.update(1_499_999_500)
    assert capsys.readouterr().err == "merge: 1.5G/5G B, 10 s, train/loss 0.21\n"


def test_an_unknown_total(seconds, capsys):
    for _ in track(iter("ab"), "reading"):
        seconds[0] += 10
    assert capsys.readouterr().err.splitlines() == ["reading: 1, 10 s", "reading: 2, 20 s"]


def test_silence(seconds, capsys):
    for _ in track(range(3), "nothing", show=False):
        seconds[0] += 100
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = track(range(3), "watched", unit="epochs")
    assert isinstance(bar, Bar) and not isinstance(bar, Lines)
    assert list(bar) == [0, 1, 2]
    assert "watched" in capsys.readouterr().err
