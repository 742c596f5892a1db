"""metanet.trust: what is remembered, for whom, and what a message shows."""

import json

import pytest

from metanet import trust
from metanet.errors import MetanetError
from metanet.trust import TrustError, remember, require, trusting


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("METANET_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "theirs").mkdir()
    return tmp_path / "theirs"


@pytest.mark.parametrize(
    ("reference", "is_open"),
    [
        ("metanet.zoo.networks:mlp", True),
        ("metanet.zoo.networks:siren", True),
        ("timm:resnet18", True),
        ("hf:gpt2", True),
        ("metanet.zoo.networks:torch.load", False),
        ("metanet.zoo.networks:mlp.__globals__", False),
        ("metanet.zoo.networks:Siren", False),
        ("metanet.zoo.networks:activation_layer", False),
        ("metanet.zoo.networks:mlp\n", False),
        ("timm:hf-hub:org/name", False),
        ("timm:local-dir:/tmp", False),
        ("hf:org/name", False),
        ("hf:/tmp", False),
        ("hf:..", False),
        ("hf:surely_no_model_type", False),
        ("os:system", False),
        ("/tmp", False),
        ("", False),
    ],
)
def test_what_any_file_may_name(reference, is_open, folder):
    import metanet.zoo  # noqa: F401  # registers its networks

    assert trust.is_open(reference) is is_open
    if not is_open:
        with pytest.raises(TrustError):
            require([reference], folder)


def test_a_refusal_shows_the_references_and_what_to_do(folder):
    with pytest.raises(TrustError) as caught:
        require(["os:system", "timm:resnet18", "nets:cnn"], folder, "the code of networks")
    assert "'nets:cnn'\n  'os:system'" in str(caught.value) and "timm" not in str(caught.value)
    assert f"trust={folder}" in str(caught.value) and "the code of networks" in str(caught.value)


def test_messages_are_short_and_free_of_control_characters(folder):
    with pytest.raises(TrustError) as caught:
        require([f"{n}\x1b[2J\n" + "x" * 10_000 for n in range(100)], folder)
    assert (
        len(str(caught.value)) < 2000
        and "\x1b" not in str(caught.value)
        and "and 92 more" in str(caught.value)
    )


def test_trust_is_remembered_for_these_references_in_this_folder(folder, tmp_path):
    with trusting(folder):
        require(["nets:cnn"], folder)
    require(["nets:cnn"], folder)
    with pytest.raises(TrustError, match="nets:mlp"):
        require(["nets:cnn", "nets:mlp"], folder)
    with pytest.raises(TrustError):
        require(["nets:cnn"], tmp_path)
    folder.rename(tmp_path / "moved")
    with pytest.raises(TrustError):
        require(["nets:cnn"], tmp_path / "moved")


def test_folders_inside_a_trusted_one_are_trusted_and_those_around_it_are_not(folder, tmp_path):
    (folder / "model").mkdir()
    with trusting(folder):
        assert trust.is_trusted(folder / "model")
        assert not trust.is_trusted(tmp_path)
    assert not trust.is_trusted(folder)
    with trusting(True):
        assert trust.is_trusted(tmp_path)


def test_the_folder_is_the_one_that_a_link_leads_to(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    remember(tmp_path / "link", ["nets:cnn"])
    require(["nets:cnn"], folder)


def test_what_a_killed_process_left_of_a_memory_goes(folder, state):
    remember(folder, ["nets:cnn"])
    (memory,) = (state / "trusted").iterdir()
    memory.with_name(f".0123abcd.partial.{memory.name}").write_text("{")
    remember(folder, ["nets:mlp"])
    assert list((state / "trusted").iterdir()) == [memory]
    require(["nets:cnn", "nets:mlp"], folder)


def test_where_nothing_can_be_remembered_it_is_said(folder, state, caplog):
    state.write_text("a file")
    with trusting(folder):
        require(["nets:cnn"], folder)
    assert "can't remember" in caplog.text
    with pytest.raises(TrustError):
        require(["nets:cnn"], folder)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"folder": 1, "trusted": []}', '{"folder": "/other", "trusted": ["a:b"]}'],
)
def test_a_damaged_memory_trusts_nothing(content, folder, state):
    remember(folder, ["a:b"])
    (path,) = (state / "trusted").iterdir()
    path.write_text(content)
    with pytest.raises(TrustError):
        require(["a:b"], folder)
    remember(folder, ["a:b"])
    assert json.loads(path.read_text())["trusted"] == ["a:b"]


def test_the_value_of_trust_on_the_command_line(folder):
    assert trust.folders_named(None) == trust.folders_named(False) == []
    assert trust.folders_named("true") == trust.folders_named(True) == [True]
    assert trust.folders_named([str(folder), True]) == [str(folder), True]
    for wrong in ("nowhere", 3, ["nowhere"], "a\0b"):
        with pytest.raises(MetanetError, match="no such folder"):
            trust.folders_named(wrong)


class TestArguments:
    def function(
        self, width: int, rate: float = 0.5, name: str = "a", sizes: list[int] | None = None
    ): ...

    @pytest.mark.parametrize(
        "given", [{"width": 1}, {"width": 1, "rate": 1}, {"width": 2, "sizes": [1], "name": "b"}]
    )
    def test_fit(self, given):
        trust.check_arguments(type(self).function, given, "a file")

    @pytest.mark.parametrize(
        "given",
        [{}, {"width": "1"}, {"width": 1.5}, {"width": True, "rate": "x"}, {"width": 1, "other": 2},
            {"width": None},
         {"width": 1, "sizes": "12"}, {"width": 1, "self": 2}, {"width": 1, "_target_": "os.system"}],
    )  # fmt: skip
    def test_do_not_fit(self, given):
        with pytest.raises(MetanetError, match="a file"):
            trust.check_arguments(type(self).function, given, "a file")


def test_no_folder_is_trusted_by_false():
    with pytest.raises(TypeError), trusting(False):
        pass
