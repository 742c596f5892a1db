"""2,000 of the changed files that ``benchmarks/mutations.py`` makes: each ends in a value or in one
of our errors."""

import warnings

import pytest

mutations = pytest.importorskip(
    "mutations", reason="benchmarks/ is no part of a source distribution"
)
EACH = -(-2_000 // len(mutations.FORMATS))
FIRST = 1_000_000  # other ones than the first of the benchmark


@pytest.mark.parametrize("name", mutations.FORMATS)
def test_a_changed_file_ends_in_a_value_or_in_our_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    sound = mutations.Sound(name, tmp_path / "files")
    sound.format.read(sound.folder)  # without an error, where nothing is changed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = [mutations.verdict(sound, FIRST + number) for number in range(EACH)]
    wrong = [
        r
        for r in results
        if r["verdict"] not in ("value", "our error") or r["compared"] == "unexplained"
    ]
    assert not wrong
    assert max(r["message"] for r in results) <= 2_000
    assert {r["verdict"] for r in results} == {"value", "our error"}, (
        "the changes are all harmless, or all fatal"
    )
