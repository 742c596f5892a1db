"""What a torch file may not do to the machine that reads it: take the stack, the memory, or bytes
beside its own."""

import io
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest
import torch

from checkpoints.test_hostile import entry, storage, tensor, text
from checkpoints.torch_files import FORMATS, assert_same, older_bytes, zip_bytes
from metanet.checkpoints import load_checkpoint, load_objects
from metanet.checkpoints._pickle_scan import DEEPEST, scan
from metanet.errors import CheckpointError

HOW = ["refuse", "inert"]


def nested(depth, step):
    """A dict whose key is a tuple in a tuple in a tuple ..."""
    return b"\x80\x02})" + step * depth + b"K\x01s" + text("w") + tensor(storage()) + b"s."


STEPS = {
    "TUPLE1": b"\x85",
    "memo": b"q\x00h\x00\x85",
    "two": b"K\x01\x86",
    "of marks": b"q\x000(h\x00t",
    "popped": b"K\x010\x85",
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("wrap", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_tuples_a_million_deep_are_refused(step, wrap, how, tmp_path):
    """In a process of its own, since what is tested for is a crash."""
    (tmp_path / "x.pt").write_bytes(wrap(nested(200_000, step)))
    with pytest.raises(CheckpointError, match=f"containers stand more than {DEEPEST} deep"):
        load_checkpoint(tmp_path / "x.pt", foreign_classes=how)


def test_the_depth_that_is_refused_takes_the_stack(tmp_path):
    """The twin: Python itself does not survive it."""
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02})" + b"\x85" * 5_000_000 + b"K\x01s.")
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "x.pkl"], capture_output=True
        ).returncode
        < 0
    )


@pytest.mark.parametrize("depth", [1, 50, DEEPEST - 10])
def test_containers_of_a_likely_depth_are_read(depth, tmp_path):
    value = ()
    for _ in range(depth):
        value = (value,)
    with_keys = {"state_dict": {"w": torch.ones(2)}, value: [value, {"a": value}]}
    for name, zipped in (("x.pt", True), ("y.pt", False)):
        try:
            torch.save(with_keys, tmp_path / name, _use_new_zipfile_serialization=zipped)
        except RecursionError:
            pytest.skip("pickle does not write this depth here")
        assert list(load_checkpoint(tmp_path / name)) == ["w"]


@pytest.mark.parametrize("protocol", range(6))
def test_the_scan_ends_where_the_pickle_does(protocol):
    value = {
        "a": [1, 2.5, None, True, "ä" * 300, b"x" * 300, 2**70, -3],
        "b": {1, 2},
        ("t", ()): OrderedThings,
        "f": frozenset({3}),
    }
    value["self"] = value["a"]
    content = pickle.dumps(value, protocol)
    assert scan(content + b"rest", 0, 10**6) == len(content)
    assert scan(b"before" + content, 6, 10**6) == 6 + len(content)


class OrderedThings:
    """Some class of a module."""


OPERATIONS = {
    "lists": b"]" * 10**7, "marks": b"(" * 10**7,
    "calls": b"ccollections\nOrderedDict\nq\x00" + b"h\x00)R" * 2 * 10**6,
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_pickle_that_makes_too_much_is_refused(name, tmp_path):
    (tmp_path / "x.pt").write_bytes(older_bytes(b"\x80\x02" + OPERATIONS[name]))
    with pytest.raises(CheckpointError, match="what it makes would take more than"):
        load_checkpoint(tmp_path / "x.pt")


WIDE = {
    "a view of one value": (b"(L1099511627776L\nt", b"(I0\nt", "x.pt': w is .* does not hold"),
    "sizes that overflow": (b"(L1099511627776L\nL1099511627776L\nt", b"(I0\nI0\nt", "x.pt'"),
    "wide strides": (b"(I2\nt", b"(L1099511627776L\nt", "x.pt'"),
    "more than its storage": (b"(L1099511627776L\nt", b"(I1\nt", "x.pt'"),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", WIDE)
def test_a_shape_that_the_file_does_not_hold_is_refused(name, how, tmp_path):
    shape, stride, reason = WIDE[name]
    big, two, one, zero = b"\x8a\x06" + (2**40).to_bytes(6, "little"), b"K\x02", b"K\x01", b"K\x00"
    made = {b"L1099511627776L\n": big, b"I2\n": two, b"I1\n": one, b"I0\n": zero}
    for written, binary in made.items():
        shape, stride = shape.replace(written, binary), stride.replace(written, binary)
    write(tmp_path, shape=shape, stride=stride)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / "x.pt", foreign_classes=how)


def write(folder, shape=b"(K\x02t", stride=b"(K\x01t", count=b"K\x02", records=None):
    """A zip file with one float tensor ``w``; operations are those that ``weights_only`` knows."""

    def word(value):
        return b"X" + struct.pack("<I", len(value)) + value

    store = (
        b"("
        + word(b"storage")
        + b"ctorch\nFloatStorage\n"
        + word(b"0")
        + word(b"cpu")
        + count
        + b"tQ"
    )
    made = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + store
        + b"K\x00"
        + shape
        + stride
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    content = b"\x80\x02}" + word(b"w") + made + b"s."
    data = [("data/0", struct.pack("<2f", 1, 2)), ("data/1", struct.pack("<2f", 3, 4))]
    (folder / "x.pt").write_bytes(zip_bytes(content, data if records is None else records))


@pytest.mark.parametrize("how", HOW)
def test_a_storage_ends_with_its_record(how, tmp_path):
    """torch takes its size from the pickle, and would read the next record as values."""
    write(tmp_path)
    assert load_checkpoint(tmp_path / "x.pt", foreign_classes=how)["w"].tolist() == [1, 2]
    write(tmp_path, count=b"K\x20", shape=b"(K\x20t")
    with pytest.raises(
        CheckpointError, match="0 of 32 values has 8 bytes|ends at byte 128 of a storage of 8"
    ):
        load_checkpoint(tmp_path / "x.pt", foreign_classes=how)


def test_a_storage_that_an_older_file_does_not_list_is_refused(tmp_path):
    """torch leaves it as the memory was."""
    torch.save({"w": torch.ones(3)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pt").read_bytes()
    key = content[content.rindex(b"\x80\x02]q\x00X") :]
    changed = key.replace(key[10:11], b"7", 1)
    (tmp_path / "x.pt").write_bytes(content[: -len(key)] + changed)
    for how in HOW:
        with pytest.raises(
            CheckpointError, match="its storage .* is not among|nothing says of what dtype"
        ):
            load_checkpoint(tmp_path / "x.pt", foreign_classes=how)


class TestDeflated:
    """Archives that another tool has packed again."""

    @staticmethod
    def repack(path, methods=(zipfile.ZIP_DEFLATED,)):
        with zipfile.ZipFile(path) as archive:
            records = [(info.filename, archive.read(info)) for info in archive.infolist()]
        with zipfile.ZipFile(path, "w") as archive:
            for number, (name, content) in enumerate(records):
                archive.writestr(name, content, compress_type=methods[number % len(methods)])

    @pytest.mark.parametrize("how", HOW)
    @pytest.mark.parametrize(
        "methods", [(zipfile.ZIP_DEFLATED,), (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)]
    )
    def test_every_bit_is_as_torch_reads_it(self, how, methods, tmp_path):
        """Records that shrink, and records that do not: random numbers, a few bytes, none."""
        torch.manual_seed(0)
        whole = torch.randn(64)
        state = {
            "random": torch.randn(500), "zeros": torch.zeros(3_000), "small": torch.tensor(2.5),
            "empty": torch.empty(0, 2), "half": torch.randn(3, 5).bfloat16(),
            "flags": torch.tensor([True, False]), "view": whole[8:24:2],
            "whole": whole, "long": torch.arange(7),
        }  # fmt: skip
        torch.save(state, tmp_path / "x.pt")
        self.repack(tmp_path / "x.pt", methods)
        assert_same(
            load_checkpoint(tmp_path / "x.pt", foreign_classes=how),
            torch.load(tmp_path / "x.pt", weights_only=True),
        )
        sent = pickle.loads(pickle.dumps(load_checkpoint(tmp_path / "x.pt", foreign_classes=how)))
        assert_same(sent, state)

    @pytest.mark.parametrize("how", HOW)
    def test_a_bomb_is_refused_before_it_is_inflated(self, how, tmp_path):
        write(tmp_path, records=[("data/0", bytes(300 * 2**20))])
        self.repack(tmp_path / "x.pt")
        assert (tmp_path / "x.pt").stat().st_size < 2**20
        with pytest.raises(
            CheckpointError, match=r"would inflate to 314,\d\d\d,\d\d\d bytes.*zip -0"
        ):
            load_checkpoint(tmp_path / "x.pt", foreign_classes=how)

    @pytest.mark.parametrize("how", HOW)
    def test_a_damaged_record_is_named(self, how, tmp_path):
        torch.save({"w": torch.zeros(5_000)}, tmp_path / "x.pt")
        self.repack(tmp_path / "x.pt")
        content = bytearray((tmp_path / "x.pt").read_bytes())
        with zipfile.ZipFile(tmp_path / "x.pt") as archive:
            record = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        content[record.header_offset + 30 + len(record.filename) + 4] ^= 0xFF
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="x.pt"):
            dict(load_checkpoint(tmp_path / "x.pt", foreign_classes=how))


KINDS = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "sparse rows": lambda: torch.eye(2).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "meta": lambda: torch.empty(2, device="meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_a_tensor_of_another_kind_is_named(name, tmp_path):
    torch.save({"plain": torch.ones(1), "odd": KINDS[name]()}, tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match=r"x.pt': odd is (sparse|quantised|without data).*inert"
    ):
        load_checkpoint(tmp_path / "x.pt")
    assert "plain" in load_checkpoint(tmp_path / "x.pt", foreign_classes="inert")


def test_dicts_that_share_each_other_are_looked_into_once(tmp_path):
    """A thousand times a thousand times a thousand looks would take hours."""
    inner = {f"{i}": 1 for i in range(1_000)}
    for _ in range(4):
        inner = dict.fromkeys((f"{i}" for i in range(1_000)), inner)
    torch.save({"net": inner, "other": inner}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="no tensors at its top level"):
        load_checkpoint(tmp_path / "x.pt")


def test_objects_are_looked_at_too(tmp_path):
    (tmp_path / "x.pt").write_bytes(zip_bytes(nested(100_000, b"\x85")))
    with pytest.raises(CheckpointError, match="containers stand more than"):
        load_objects(tmp_path / "x.pt", ())


def test_operations_behind_each_other_are_not_mistaken_for_depth():
    many = b"\x80\x02](" + b"K\x01\x85" * 100_000 + b"e."
    assert scan(many, 0, 10**8) == len(many)
    assert scan(io.BytesIO(entry(b"N")).getvalue(), 0, 10**6) == len(entry(b"N"))


def shared(count: int) -> bytes:
    """A tuple of one tuple twice, of one tuple twice, ...: 2**count parts in a few bytes."""
    return b"K\x01" + b"2\x86" * count


def wide(count: int) -> bytes:
    """Integers that all hash to 0, each with a value."""
    numbers = ((i + 1) * (2**61 - 1) for i in range(count))
    return b"".join(
        b"\x8a\x10" + number.to_bytes(16, "little", signed=True) + b"N" for number in numbers
    )


LONG_HASHES = {
    "a key of 2**60 parts": b"}" + shared(60) + b"Ns",
    "among others": b"}(K\x01N" + shared(60) + b"Nu",
    "from the memo": b"}" + shared(60) + b"q\x01Nsh\x01",
    "of a dict made at once": b"(" + shared(60) + b"Nd",
    "in a set": b"\x8f(" + shared(60) + b"\x90",
    "in a frozenset": b"(" + shared(60) + b"\x91",
    "many keys of 2**20 parts": b"}" + b"".join(shared(20) + b"K%c\x86Ns" % i for i in range(100)),
    "keys of one hash": b"}(" + wide(30_000) + b"u",
}


@pytest.mark.parametrize("inner", LONG_HASHES.values(), ids=LONG_HASHES)
@pytest.mark.parametrize("wrap", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("how", HOW)
def test_keys_that_take_hours_to_hash_are_refused(inner, wrap, how, tmp_path):
    (tmp_path / "x.pt").write_bytes(wrap(b"\x80\x04" + inner + b"."))
    with pytest.raises(CheckpointError, match="keys would take long to hash"):
        load_checkpoint(tmp_path / "x.pt", foreign_classes=how)


@pytest.mark.parametrize("how", HOW)
def test_what_is_shared_or_wide_but_no_key_is_read(how, tmp_path):
    pair = ()
    for _ in range(60):
        pair = (pair, pair)
    numbers = [2**62 + i for i in range(20_000)]
    keys = {(2**40 + i, (i, "a")): i for i in range(500)}
    content = {
        "w": torch.ones(2),
        "numbers": numbers,
        "keys": keys,
        "twice": [numbers, numbers],
        "pair": pair,
    }
    torch.save(content, tmp_path / "x.pt")
    assert list(load_checkpoint(tmp_path / "x.pt", foreign_classes=how)) == ["w"]


def test_names_of_many_classes_take_memory():
    """Each foreign class has a stand-in of its own: a file of 4 MB could make a gigabyte of
    them."""
    names = b"\x80\x02]" + b"".join(b"ca\nb%d\n0" % i for i in range(1_000)) + b"."
    assert scan(names, 0, 10**7) == len(names)
    with pytest.raises(pickle.UnpicklingError, match="more than 1,000,000 bytes of memory"):
        scan(names, 0, 10**6)


@pytest.mark.parametrize("how", HOW)
def test_the_records_of_an_archive_are_listed_as_often_however_many_there_are(
    how, tmp_path, monkeypatch
):
    """Once for each of them would take the square of their number: minutes for a model of thousands
    of tensors."""
    listed = []
    for count in (2, 40):
        torch.save({f"{i}": torch.full((3,), float(i)) for i in range(count)}, tmp_path / "x.pt")
        TestDeflated.repack(tmp_path / "x.pt")
        with monkeypatch.context() as patch:
            opened = []
            patch.setattr(
                zipfile,
                "ZipFile",
                lambda *a, real=zipfile.ZipFile, seen=opened: seen.append(a) or real(*a),
            )
            checkpoint = load_checkpoint(tmp_path / "x.pt", foreign_classes=how)
            assert [checkpoint[f"{i}"].tolist() for i in range(count)] == [
                [float(i)] * 3 for i in range(count)
            ]
        listed.append(len(opened))
    assert listed[0] == listed[1] > 0


@pytest.mark.parametrize("record", ["byteorder", "version", "data.pkl", "data/0"])
def test_no_record_that_cannot_be_inflated_is_left_to_torch(record, tmp_path):
    """torch goes on with whatever lay in memory: its verdict changes from call to call."""
    torch.save({"w": torch.arange(64.0)}, tmp_path / "sound.pt")
    with (
        zipfile.ZipFile(tmp_path / "sound.pt") as source,
        zipfile.ZipFile(tmp_path / "x.pt", "w") as packed,
    ):
        for info in source.infolist():
            packed.writestr(info.filename, source.read(info), compress_type=zipfile.ZIP_DEFLATED)
    assert torch.equal(load_checkpoint(tmp_path / "x.pt")["w"], torch.arange(64.0))
    with zipfile.ZipFile(tmp_path / "x.pt") as packed:
        info = next(each for each in packed.infolist() if each.filename.endswith(f"/{record}"))
    content = bytearray((tmp_path / "x.pt").read_bytes())
    start = info.header_offset + 30 + len(info.filename)
    content[start] = 0xFF  # no kind of block that deflate has
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="x.pt' is damaged"):
        load_checkpoint(tmp_path / "x.pt")
