"""A stranger's zoo: zoo.json, what lies beside it, and the table of a folder."""

import json
import os
from pathlib import Path

import pytest
import torch

import metanet
from metanet.errors import MetanetError
from metanet.trust import TrustError, trusting
from metanet.zoo import Blueprint, DamagedZooError, FolderZoo, ZooError, networks, open_zoo
from metanet.zoo._files import sha256
from metanet.zoo._store import Shard, finish, save_shard

from .conftest import untouched


@pytest.fixture
def zoo(place):
    """A zoo of two networks, as its maker leaves it."""
    folder = place / "zoo"
    folder.mkdir()
    save_zoo(folder, "metanet.zoo.networks:mlp", {"widths": [3]})
    return folder


def save_zoo(folder, ref, arguments):
    states = [networks.mlp([3]).state_dict() for _ in range(2)]
    state = {name: torch.stack([each[name] for each in states]) for name in states[0]}
    rows = [
        {"id": str(i), "run": str(i), "architecture": "mlp", "quality": 0.5 * i} for i in range(2)
    ]
    save_shard(folder / "mlp-00000.safetensors", Shard(state=state, rows=rows))
    architecture = Blueprint(ref=ref, arch_args=arguments, input_shape=(1, 8, 8))
    finish(folder, "theirs", {}, {"mlp": architecture}, [("mlp-00000.safetensors", "mlp")])


def edit(folder, change):
    """Change the manifest, and renew its checksum as a stranger would."""
    path = folder / "zoo.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    manifest["sha256"] = sha256(json.dumps(rest, sort_keys=True).encode())
    path.write_text(json.dumps(manifest))


def architecture(**changes):
    return lambda manifest: manifest["architectures"]["mlp"].update(changes)


@pytest.mark.parametrize(
    ("ref", "arguments"),
    [
        ("os:system", {"command": "touch canary"}),
        ("evil:cnn", {}),
        ("metanet.zoo.networks:torch.hub.load", {"repo_or_dir": "."}),
        ("hf:.", {}),
        (".", {}),
    ],
)
def test_code_that_zoo_json_names_needs_the_users_word(ref, arguments, zoo):
    edit(zoo, architecture(ref=ref, arch_args=arguments))
    opened = open_zoo(zoo)  # looking at it runs nothing
    assert len(opened) == 2 and untouched()
    with pytest.raises(TrustError) as caught:
        opened.populations["mlp"].build()
    assert repr(ref) in str(caught.value) and f"trust={zoo}" in str(caught.value)
    assert untouched()


def test_with_it_the_code_is_imported_and_remembered(zoo, place):
    edit(zoo, architecture(ref="evil:cnn", arch_args={}))
    with trusting(zoo):
        open_zoo(zoo).populations["mlp"].build()
    assert (place / "canary").exists()
    open_zoo(zoo).populations["mlp"].build()
    edit(zoo, architecture(ref="os:system", arch_args={}))
    with pytest.raises(TrustError, match="os:system"):
        open_zoo(zoo).populations["mlp"].build()


@pytest.mark.parametrize(
    "arguments",
    [
        {"widths": [2**40]}, {"widths": [10**7, 10**7]}, {"classes": 2**62}, {"input_shape": [2**30, 2**30]},
        {"widths": "abc"}, {"widths": None}, {"other": 1}, {"device": "x"}, {"ref": "os:system"},
        {"activation": "exec"}, {"widths": [3] * 10_000},
    ],
)  # fmt: skip
def test_arguments_that_no_network_of_these_tensors_has(arguments, zoo):
    edit(zoo, architecture(arch_args=arguments))
    with pytest.raises(MetanetError) as caught:
        open_zoo(zoo).populations["mlp"].build()
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "arguments", [{"checkpoint_path": "victim"}, {"pretrained": True}, {"pretrained_cfg": {}}]
)
def test_timm_gets_no_weights_from_a_zoo(arguments, zoo):
    edit(zoo, architecture(ref="timm:resnet18", arch_args=arguments))
    with pytest.raises(MetanetError, match="random weights here"):
        open_zoo(zoo).populations["mlp"].build()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "{place}/secret.safetensors",
        "sub/secret.safetensors",
        "..",
        "",
        ".hidden",
        "a\0b",
    ],
)
def test_no_path_leads_out_of_the_folder(name, zoo, place):
    """And nothing is told of a file that is none of the zoo's, be it 12 digits of its digest."""
    secret = b"the secret of somebody"
    (place / "secret.safetensors").write_bytes(secret)
    entry = {"sha256": "0" * 64, "bytes": len(secret), "count": 1, "architecture": "mlp"}
    edit(zoo, lambda m: m["files"].__setitem__(name.format(place=place), entry))
    with pytest.raises(DamagedZooError) as caught:
        open_zoo(zoo)
    assert sha256(secret)[:6] not in str(caught.value)


@pytest.mark.parametrize("target", ["secret", "/dev/zero", "/etc/hostname"])
def test_no_link_leads_out_of_it(target, zoo, place):
    secret = b"the secret of somebody"
    (place / "secret").write_bytes(secret)
    entry = {"sha256": sha256(secret), "bytes": len(secret), "count": 1, "architecture": "mlp"}
    (zoo / "more.safetensors").symlink_to(place / target)
    edit(zoo, lambda m: m["files"].__setitem__("more.safetensors", entry))
    with pytest.raises(DamagedZooError, match="a link that leads out") as caught:
        open_zoo(zoo)
    assert sha256(secret)[:6] not in str(caught.value)


def test_circles_of_links_end(zoo):
    path = zoo / "mlp-00000.safetensors"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(DamagedZooError, match="a link that leads out"):
        open_zoo(zoo)


def test_pipes_do_not_block(zoo):
    for name in ("mlp-00000.safetensors", "zoo.json"):
        (zoo / name).unlink()
        os.mkfifo(zoo / name)
        with pytest.raises(ZooError, match="regular file"):
            open_zoo(zoo)


class TestFolder:
    @pytest.fixture
    def table(self, place):
        (place / "own").mkdir()
        metanet.save_checkpoint(place / "own/a.safetensors", networks.mlp([3]).state_dict())

        def write(architecture, **options):
            (place / "own/t.csv").write_text(
                f"path,quality,architecture\na.safetensors,1,{architecture}\n"
            )
            given = {"path": "own", "table": "t.csv", "label": "quality", "input_shape": [1, 8, 8]}
            return FolderZoo(**given, **options)

        return write

    @pytest.mark.parametrize(
        "ref", ["evil:cnn", "os:system", "hf:.", "metanet.zoo.networks:nn.Linear"]
    )
    def test_a_column_of_code_needs_the_users_word(self, ref, table):
        with pytest.raises(TrustError) as caught:
            table(ref).load(progress=False)
        assert repr(ref) in str(caught.value) and f"trust={Path('own').absolute()}" in str(
            caught.value
        )
        assert untouched()

    def test_with_it_the_code_is_imported(self, table, place):
        import evil

        metanet.save_checkpoint(place / "own/a.safetensors", evil.cnn().state_dict())
        with trusting("own"):
            assert len(table("evil:cnn").load(progress=False)) == 1
        assert len(table("evil:cnn").load(progress=False)) == 1, "it is remembered"

    def test_what_is_typed_needs_none(self, table, place):
        import evil

        metanet.save_checkpoint(place / "own/a.safetensors", evil.cnn().state_dict())
        loaded = table("", arch="evil:cnn").load(progress=False)
        loaded.populations["cnn"].build()
