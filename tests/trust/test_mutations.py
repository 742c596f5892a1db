"""Every mutation of a zoo's and a model's files ends in one of our errors, or changes nothing that
matters."""

import json
import random
import shutil
import string

import pytest
import torch

import metanet
import metanet.nn
from metanet.errors import MetanetError
from metanet.tasks._saved import read_run, restore_task
from metanet.zoo import FolderZoo, networks, open_zoo
from metanet.zoo._files import sha256

from .test_zoos import save_zoo

VALUES = [
    None,
    True,
    -1,
    0,
    2**62,
    1.5,
    1e308,
    "",
    "x",
    "../x",
    "\x00",
    "é" * 3,
    [],
    [[]],
    {},
    {"a": {}},
    [None],
    "9" * 50,
]


def places(value, at=()):
    """Where in parsed JSON something stands."""
    yield at
    for key, inner in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from places(inner, (*at, key))


def mutated(value, rng):
    """One change: a value replaced, removed, doubled, or a key renamed."""
    value = json.loads(json.dumps(value))
    at = rng.choice([place for place in places(value) if place])
    node = value
    for key in at[:-1]:
        node = node[key]
    match rng.randrange(4):
        case 0:
            del node[at[-1]]
        case 1 if isinstance(node, dict):
            node[rng.choice([*"ab", "device", "self", "_target_", "__class__"])] = node.pop(at[-1])
        case _:
            node[at[-1]] = rng.choice(VALUES)
    return value


def bent(text, rng):
    """Bytes of a file, changed without a thought for what it is."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0:
                del data[position : position + rng.randint(1, 40)]
            case 1:
                data[position:position] = rng.choice(string.printable).encode() * rng.randint(1, 30)
            case _:
                data[position : position + 1] = bytes([rng.randrange(256)])
    return bytes(data)


def survives(action, what):
    """Runs an action, whose errors must be ours and short."""
    message = None
    try:
        action()
    except MetanetError as error:
        message = str(error)
    assert message is None or len(message) < 2000, what
    return message is None


@pytest.fixture
def zoo(place):
    (place / "zoo").mkdir()
    save_zoo(place / "zoo", "metanet.zoo.networks:mlp", {"widths": [3]})
    return place / "zoo"


def read_zoo(folder):
    zoo = open_zoo(folder)
    for population in zoo:
        network = population.build()
        network(population.example())


@pytest.mark.parametrize("renewed", [True, False])
def test_the_manifest(renewed, zoo):
    rng, path = random.Random(0), zoo / "zoo.json"
    sound = json.loads(path.read_text())
    outcomes = set()
    for _ in range(150 if renewed else 50):
        manifest = mutated(sound, rng)
        if renewed and isinstance(manifest, dict):
            rest = {key: value for key, value in manifest.items() if key != "sha256"}
            manifest["sha256"] = sha256(json.dumps(rest, sort_keys=True).encode())
        path.write_text(json.dumps(manifest))
        outcomes.add(survives(lambda: read_zoo(zoo), manifest))
        path.write_bytes(bent(json.dumps(sound).encode(), rng))
        outcomes.add(survives(lambda: read_zoo(zoo), path.read_bytes()))
    assert outcomes == ({True, False} if renewed else {False})


@pytest.mark.parametrize("name", ["mlp-00000.safetensors", "table.csv"])
def test_other_files_with_renewed_checksums(name, zoo):
    rng, path, manifest = random.Random(1), zoo / name, zoo / "zoo.json"
    sound, described = path.read_bytes(), json.loads(manifest.read_text())
    length = int.from_bytes(sound[:8], "little")
    for number in range(150):
        if name.endswith("csv"):
            data = bent(sound, rng)
        elif number % 2:
            data = (
                sound[:8]
                + bent(sound[8 : 8 + length], rng)[:length].ljust(length)
                + sound[8 + length :]
            )
        else:
            header = json.loads(sound[8 : 8 + length])
            header["__metadata__"]["zoo"] = json.dumps(
                mutated(json.loads(header["__metadata__"]["zoo"]), rng)
            )
            text = json.dumps(header).encode()
            data = len(text).to_bytes(8, "little") + text + sound[8 + length :]
        path.write_bytes(data)
        described["files"][name] |= {"sha256": sha256(data), "bytes": len(data)}
        rest = {key: value for key, value in described.items() if key != "sha256"}
        described["sha256"] = sha256(json.dumps(rest, sort_keys=True).encode())
        manifest.write_text(json.dumps(described))
        survives(lambda: read_zoo(zoo), data)


def test_the_checksum_beside_a_shard(zoo):
    from metanet.zoo._store import shard_problem

    rng, shard = random.Random(2), zoo / "mlp-00000.safetensors"
    path = shard.with_suffix(".json")
    sound = path.read_bytes()
    assert shard_problem(shard) is None
    for _ in range(100):
        path.write_text(json.dumps(mutated(json.loads(sound), rng)))
        problem = shard_problem(shard)
        path.write_bytes(bent(sound, rng))
        assert problem is None or len(problem) < 500
        shard_problem(shard)


@pytest.mark.filterwarnings(
    "ignore:Initializing zero-element"
)  # width=0, before its tensors are compared
@pytest.mark.parametrize("name", ["gmn", "deep_sets", "stat", "probed_gmn"])
def test_the_description_of_a_model(name, place):
    arguments = {
        "gmn": {"width": 8, "layers": 1}, "deep_sets": {"width": 8, "layers": 2}, "stat": {"iterations": 3},
        "probed_gmn": {"probes": 3, "inputs": [2], "gmn": {"width": 8, "layers": 1}},
    }[name]  # fmt: skip
    entry = {
        "ref": "metanet.zoo.networks:siren",
        "arch_args": {},
        "input_shape": [2],
        "input_range": [0.0, 1.0],
    }
    meta = {
        "task": {
            "name": "accuracy_prediction",
            "arguments": {"label": "a", "unseen": None, "val": 0.1},
        },
        "scale": {"mean": 0.0, "std": 1.0, "loss_kind": "huber"},
        "architectures": {"siren": entry},
        "config": {},
    }
    metanet.nn.save(place / "m", metanet.nn.build(name, **arguments), meta)
    rng, path = random.Random(3), place / "m/model.json"
    sound = json.loads(path.read_text())

    def read():
        model = metanet.nn.load(place / "m")
        restore_task(read_run(model.meta, "model.json"), place / "m").describe(torch.zeros(1))

    read()
    for _ in range(60):
        path.write_text(json.dumps(mutated(sound, rng)))
        survives(read, path.read_text())
        path.write_bytes(bent(json.dumps(sound).encode(), rng))
        survives(read, path.read_bytes())


def test_the_tensors_of_trees_are_trees(place):
    """A child that is its own parent would be a walk without end; an index beyond the end,
    another's memory."""
    model = metanet.nn.build("stat", positions=1)
    one = torch.tensor([1])
    leaf = torch.tensor([0, 1, 1], dtype=torch.uint8)
    sound = {
        "columns": torch.tensor([0]), "feature": torch.zeros(3, dtype=torch.long),
        "threshold": torch.zeros(3).double(), "left": torch.tensor([1, 0, 0]),
        "right": torch.tensor([2, 0, 0]), "missing_left": leaf, "leaf": leaf,
        "value": torch.zeros(3).double(), "root": one - 1, "output": one - 1,
        "baseline": torch.zeros(1).double(),
    }  # fmt: skip
    model.load_tensors(sound)
    for name, value in {
        "left": torch.tensor([0, 0, 0]), "right": torch.tensor([3, 0, 0]), "feature": torch.tensor([1, 0, 0]),
        "root": one + 2, "output": one, "columns": torch.tensor([10**6]), "value": torch.zeros(2).double(),
        "baseline": torch.zeros(1, 1), "threshold": torch.zeros(3).to(torch.complex64), "leaf": leaf[None],
    }.items():  # fmt: skip
        with pytest.raises(MetanetError, match="trees"):
            model.load_tensors({**sound, name: value})


def test_the_table_of_a_folder(place):
    (place / "own").mkdir()
    for i in range(2):
        metanet.save_checkpoint(place / f"own/{i}.safetensors", networks.mlp([3]).state_dict())
    ref = "metanet.zoo.networks:mlp"
    sound = f'path,quality,architecture,arch_args,split\n0.safetensors,1,{ref},"{{""widths"": [3]}}",train\n'
    sound += f'1.safetensors,0.5,{ref},"{{""widths"": [3]}}",test\n'
    zoo = FolderZoo(path="own", table="t.csv", label="quality", input_shape=[1, 8, 8])
    rng, table = random.Random(4), place / "own/t.csv"
    table.write_text(sound)
    assert len(zoo.load(progress=False)) == 2
    for _ in range(200):
        table.write_bytes(bent(sound.encode(), rng))
        survives(lambda: zoo.load(progress=False), table.read_bytes())
    shutil.rmtree(place / "own")
