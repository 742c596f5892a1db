"""foreign_classes="inert" on hostile and broken pickles: nothing runs, and what is wrong is
said."""

import contextlib
import operator
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from checkpoints.torch_files import FORMATS, assert_same, inert, older_bytes, zip_bytes
from metanet.errors import CheckpointError

RAN = []  # what foreign code leaves behind when it runs


def ran(*args):
    RAN.append(args)


class Hostile:
    """Leaves a trace however it is made, filled or read."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return *self.reduced[:3], *(each and iter(each) for each in self.reduced[3:])


class Stateful:
    def __setstate__(self, state):
        RAN.append(state)


class Listed(list):
    def append(self, value):
        RAN.append(value)
        super().append(value)

    def extend(self, values):
        RAN.append(values)
        super().extend(values)


@pytest.fixture(autouse=True)
def _no_traces():
    RAN.clear()
    yield
    assert not RAN


@pytest.fixture(params=[True, False], ids=["zip", "older"])
def save(request, tmp_path):
    """Saves to a file in either format and gives its path."""

    def save(content):
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=request.param)
        return tmp_path / "x.pt"

    return save


def call(module, name, *args):
    """Opcodes that call ``module.name(*args)``; arguments are opcodes too."""
    return f"c{module}\n{name}\n(".encode() + b"".join(args) + b"tR"


def text(value):
    return f"V{value}\n".encode()


def entry(opcodes):
    """A pickle of ``{"w": tensor-like thing}`` made by opcodes."""
    return b"\x80\x02}" + text("w") + opcodes + b"s."


IMPORT_OS = call("builtins", "__import__", text("os"))
HOSTILE_OPCODES = {
    "system": call("os", "system", text("touch it_ran")),
    "eval": call("builtins", "eval", text("__import__('os').mkdir('it_ran')")),
    "exec": call("builtins", "exec", text("import os; os.mkdir('it_ran')")),
    "python 2": call("__builtin__", "execfile", text("it_ran")),
    "nested getattr": b"".join(
        [call("builtins", "getattr", IMPORT_OS, text("mkdir")), b"(", text("it_ran"), b"tR"]
    ),
    "methodcaller": call("operator", "methodcaller", text("mkdir"),
        text("it_ran")) + b"(" + IMPORT_OS + b"tR",
    "instance": b"(" + text("touch it_ran") + b"ios\nsystem\n",
    "object": b"(cos\nmkdir\n" + text("it_ran") + b"o",
    "new object": b"cos\nmkdir\n(" + text("it_ran") + b"t\x81",
    "qualified name": text("os") + text("mkdir.__call__") + b"\x93(" + text("it_ran") + b"tR",
    "through a known module":
        text("torch._utils") + text("torch.os.mkdir") + b"\x93(" + text("it_ran") + b"tR",
    "of main": call("__main__", "mkdir", text("it_ran")),
    "code of torch": call("torch.hub", "load", text("owner/name"), text("it_ran")),
    "nested pickle": call("torch.storage", "_load_from_bytes", b"C\x03abc"),
    "torch.load": call("torch.serialization", "load", text("it_ran")),
    "numpy object": call("numpy", "load", text("it_ran")),
    "reconstructor": call("copyreg", "_reconstructor", b"cos\nmkdir\n", b"cbuiltins\nobject\n", b"N"),
    "type of a tensor": call("torch._tensor", "_rebuild_from_type_v2", b"cos\nmkdir\nN(", text("it_ran"),
        b"tN"),
    "setstate": call("builtins",
        "object") + b"}" + text("__setstate__") + b"cos\nmkdir\n" + b"sb(" + b"l" + b"b",
    "slots": call("builtins", "object") + b"(N}" + text("__class__") + b"cos\nmkdir\nst" + b"b",
    "appends": b"cos\nmkdir\n)R(" + text("it_ran") + b"e",
    "sets": b"cos\nmkdir\n)R" + text("it_ran") + b"a",
    "import only": b"cantigravity\nanything\n",
}  # fmt: skip


@pytest.mark.parametrize("wrap", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", HOSTILE_OPCODES)
def test_hostile_opcodes_do_nothing(name, wrap, tmp_path, monkeypatch):
    """None of them is a tensor: all end as placeholders beside nothing, and the file is refused for
    lack of tensors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(wrap(entry(HOSTILE_OPCODES[name])))
    with pytest.raises(CheckpointError, match="no tensors at its top level, only w;"):
        inert("x.pt")
    assert os.listdir(tmp_path) == ["x.pt"]
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "thing",
    [
        Hostile(ran, ("called",)),
        Hostile(operator.methodcaller("__call__"), (ran,)),
        Hostile(OrderedDict, (), {"state": Stateful()}),
        Hostile(Stateful, (), {"a": 1}),
        Hostile(Listed, (), None, [1, 2, 3]),
        Hostile(OrderedDict, (), None, None, [("k", Hostile(ran, ("item",)))]),
        Stateful,
        Fraction(1, 3),
        np.float32(3),
        np.array([Hostile(ran, ("in numpy",))], dtype=object),
        {Fraction(1)},
    ],
    ids=["call", "method", "state of a known class", "setstate", "list items", "dict items", "class",
        "fraction",
         "numpy scalar", "numpy objects", "set"],
)  # fmt: skip
def test_hostile_objects_stay_placeholders(thing, save):
    state = {"w": torch.randn(3)}
    checkpoint = inert(save({"state_dict": state, "thing": thing}))
    assert_same(checkpoint, state)
    assert checkpoint.foreign


RUNS = ["system", "eval", "exec", "nested getattr", "methodcaller", "instance", "object"]


@pytest.mark.parametrize("name", RUNS)
def test_hostile_opcodes_are_hostile(name, tmp_path, monkeypatch):
    """Python's own unpickler does what they say, so the tests above can fail."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(entry(HOSTILE_OPCODES[name]))
    assert os.listdir(tmp_path) == ["it_ran"]


def storage(kind="FloatStorage", key="0", count=b"I2\n"):
    """Opcodes of a storage, as a persistent id."""
    return (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + count
        + b"tQ"
    )


def tensor(store, offset=b"I0\n", shape=b"(I2\nt", stride=b"(I1\nt"):
    return call("torch._utils", "_rebuild_tensor_v2", store, offset, shape, stride, b"I00\n", b"N")


TWO = [("data/0", struct.pack("<2f", 1, 2))]


def test_what_the_broken_files_are_variants_of_is_read(tmp_path):
    (tmp_path / "x.pt").write_bytes(zip_bytes(entry(tensor(storage())), TWO))
    assert inert(tmp_path / "x.pt")["w"].tolist() == [1, 2]
    data = struct.pack("<q2f", 2, 1, 2)
    (tmp_path / "y.pt").write_bytes(older_bytes(entry(tensor(storage())), ["0"], data))
    assert inert(tmp_path / "y.pt")["w"].tolist() == [1, 2]


KNOWN = b"ctorch._utils\n_rebuild_tensor_v2\n"
BROKEN = {
    "larger than its storage": (tensor(storage(), shape=b"(I3\nt"), r"w ends at byte 12 of a storage of 8"),
    "behind its storage": (tensor(storage(), offset=b"I1\n"), r"w ends at byte 12 of a storage of 8"),
    "before its storage": (tensor(storage(), offset=b"I-1\n"), "w has a shape or strides that are no sizes"),
    "wide strides": (tensor(storage(), stride=b"(L4611686018427387904L\nt"),
        "w ends at byte .* of a storage of 8"),
    "negative size": (tensor(storage(), shape=b"(I-2\nt"), "no sizes"),
    "size of another kind": (tensor(storage(), shape=b"(F2.5\nt"), "no sizes"),
    "fewer strides": (tensor(storage(), stride=b")"), "w is no tensor of this file"),
    "shape that is foreign": (tensor(storage(), shape=b"cos\nmkdir\n"), "Restore or remake it"),
    "no storage": (tensor(b"N"), "w is no tensor of this file"),
    "missing storage": (tensor(storage(key="7")), "lacks the record archive/data/7"),
    "storage elsewhere": (tensor(storage(key="../../etc/passwd")), r"lacks the record archive/data/\.\./"),
    "storage of a foreign class": (tensor(storage(kind="MyStorage_")),
        "refers to something that is no storage"),
    "text for a storage": (tensor(b"Pid\n"), "refers to something that is no storage"),
    "extension": (b"\x82\xf0", "it has the operation EXT1"),
    "numbered without end": (b"Nr\xff\xff\xff\x7f", r"it numbers an object 2,147,483,647"),
    "state of a function": (KNOWN + b"}" + text("__code__") + b"Nsb", "sets the state of a function"),
    "slots of a function": (KNOWN + b"(N}" + text("_describe") + b"cos\nmkdir\nstb",
        "sets the state of a function"),
    "state of a class": (b"ccollections\nOrderedDict\n}" + text("update") + b"cos\nmkdir\nsb", "Error"),
    "state of a dtype": (b"ctorch\nfloat32\n}" + text("itemsize") + b"I0\nsb", "Error"),
    "state of a placeholder class": (b"cos\nmkdir\n}" + text("__new__") + b"I0\nsb", "TypeError"),
    "state of a tensor": (tensor(storage()) + b"}" + text("offset") + b"I-8\nsb", "Error"),
    "new object of a function": (KNOWN + b")\x81", "Error"),
    "cut off": (b"X\xff\xff\x00\x00ab", "Restore or remake it"),
    "too few": (b"s", "Restore or remake it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_reason(name, tmp_path):
    opcodes, reason = BROKEN[name]
    (tmp_path / "x.pt").write_bytes(zip_bytes(entry(opcodes), TWO))
    with pytest.raises(
        CheckpointError,
        match=f"x.pt' is damaged, cut off, or was not written by torch.save.*{reason}",
    ):
        inert(tmp_path / "x.pt")


def test_modules_inside_themselves_end(tmp_path):
    """A pickle may hold itself; its names would have no end."""
    module = (
        b"cnet\nNet\n)\x81q\x01}("
        + text("_modules")
        + b"}"
        + text("child")
        + b"h\x01s"
        + text("_parameters")
    )
    module += b"}" + text("p") + tensor(storage()) + b"sub"
    (tmp_path / "x.pt").write_bytes(zip_bytes(b"\x80\x02" + module + b".", TWO))
    with pytest.raises(CheckpointError, match="modules stand in one another without end"):
        inert(tmp_path / "x.pt")


def test_modules_that_double_at_each_level_end(tmp_path):
    """Sixty modules, each twice in the next, are more names than there is time to read."""
    module = b"cnet\nNet\n)\x81}" + text("_modules") + b"}" + text("p") + b"Nssb"
    for _ in range(60):
        twice = text("a") + module + b"q\x01" + text("b") + b"h\x01"
        module = b"cnet\nNet\n)\x81}" + text("_modules") + b"}(" + twice + b"usb"
    (tmp_path / "x.pt").write_bytes(zip_bytes(b"\x80\x02" + module + b".", TWO))
    with pytest.raises(CheckpointError, match="modules stand in one another without end"):
        inert(tmp_path / "x.pt")


def test_files_that_are_something_else(tmp_path):
    cases = {
        "empty archive": (
            zip_bytes(b"").replace(b"data.pkl", b"data.abc"),
            "is a zip archive, but not one of torch",
        ),
        "packed otherwise": (
            zip_bytes(entry(b"N"), compress_type=zipfile.ZIP_BZIP2),
            "its record archive/data.pkl is packed by method 12; torch knows deflate",
        ),
        "pickle": (pickle.dumps({"w": 1}), "is a Python pickle that torch.save did not write"),
        "text": (b"not what it should be", "UnpicklingError|ValueError|KeyError"),
        "older, cut": (
            older_bytes(entry(tensor(storage())), ["0"], b"1234"),
            "it ends before its last storage",
        ),
        "older, short": (
            older_bytes(entry(tensor(storage())), ["0"], struct.pack("<q", 2) + b"1234"),
            "w ends at byte 8 of a storage of 8",
        ),
        "older, no dtype": (
            older_bytes(entry(b"N"), ["9"]),
            "nothing says of what dtype its storage 9 is",
        ),
    }
    for name, (content, reason) in cases.items():
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=reason):
            print(name, inert(tmp_path / "x.pt"))


def test_torchscript_is_not_run(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is a TorchScript archive"):
        inert(tmp_path / "x.pt")


def test_a_file_cut_anywhere_is_noticed(save):
    path = save({"w": torch.arange(6.0), "x": Fraction(1)})
    content = path.read_bytes()
    for length in [*range(1, len(content), 5), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="x.pt"):
            inert(path)


def test_flipped_bytes_never_run_anything_or_crash(save):
    """Any answer will do, from an error to other numbers, as long as it is one of ours."""
    path = save(
        {"state_dict": {"w": torch.arange(6.0), "v": torch.ones(2)}, "x": Hostile(ran, ("ran",))}
    )
    content = path.read_bytes()
    random = np.random.default_rng(0)
    read = 0
    for place in random.integers(len(content), size=400):
        changed = bytearray(content)
        changed[place] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read += len(dict(inert(path)))
    assert read
