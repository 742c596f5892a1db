"""The records of a torch file, which is a zip archive: checked before any is read, whatever packed
them.

``torch.save`` stores its records as they are, so that a tensor can be read at its place. Tools that
pack an archive again deflate them; those are inflated, within bounds: a few kilobytes may claim to
be gigabytes.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError, brief
from ._bytes import ZIP_ERRORS, FileBytes, budget

_HEAD = struct.Struct(
    "<4s5H3I2H"
)  # mark, ..., method, ..., lengths of the name and of the extra field
_DATA = re.compile(r"[^/]+/data\.pkl")


class Refused(ValueError):
    """What is wrong with a file, in a few words."""


@dataclass(frozen=True)
class Archive:
    """The records of one torch file.

    Attributes:
        file: the archive.
        folder: that all its records are in.
        records: by their names without that folder.
    """

    file: FileBytes
    folder: str
    records: Mapping[str, zipfile.ZipInfo]

    @property
    def compressed(self) -> bool:
        """Whether any tensor is not stored as it is."""
        return any(
            is_compressed(record)
            for name, record in self.records.items()
            if name.startswith("data/")
        )

    def record(self, name: str) -> zipfile.ZipInfo:
        if name not in self.records:
            raise Refused(f"it lacks the record {brief(f'{self.folder}/{name}')}")
        return self.records[name]

    def read(self, name: str) -> bytes:
        """The content of a record, inflated where it must be.

        Not by ``zipfile``, which lists all records each time that it opens an archive: for all of
        them together that would take the square of their number.

        Raises:
            Refused: it is not where the directory says, or not of the size that it says.
            zipfile.BadZipFile: it does not have its checksum.
            zlib.error: its compressed bytes are damaged.
        """
        record = self.record(name)
        content = self.file.read(self.start(name), record.compress_size)
        if is_compressed(record):
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, record.file_size + 1)
        if len(content) != record.file_size:
            raise Refused(
                f"its record {brief(name)} inflates to {len(content):,} bytes, not "
                f"{record.file_size:,}"
            )
        if zlib.crc32(content) != record.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for record {brief(name)}")
        return content

    def start(self, name: str) -> int:
        """The byte of the file at which the content of a stored record starts."""
        lengths = self.check_place(name)
        return self.record(name).header_offset + _HEAD.size + sum(lengths)

    def check_place(self, name: str) -> tuple[int, int]:
        """The lengths of the name and of the extra field, in the head of a record that stands where
        the directory says.

        Raises:
            Refused: something else is there.
        """
        record = self.record(name)
        place = record.header_offset
        expected = _name_of(record)
        content = self.file.read(place, _HEAD.size + len(expected))
        if len(content) < _HEAD.size:
            raise Refused(f"its record {brief(name)} is not where its directory says")
        head = _HEAD.unpack_from(content)
        actual = head[0], head[3], head[-2], content[_HEAD.size :]
        if actual != (b"PK\x03\x04", record.compress_type, len(expected), expected):
            raise Refused(f"its record {brief(name)} is not where its directory says")
        return head[-2], head[-1]


def open_archive(file: FileBytes) -> Archive:
    """The records of a torch file.

    Raises:
        CheckpointError: an archive of TorchScript.
        Refused: no ``data.pkl``, two records of one name, one that is packed in a way that torch
            does not know, or that takes far more memory than the file.
    """
    try:
        with zipfile.ZipFile(file.place) as archive:
            infos = archive.infolist()
    except ZIP_ERRORS as error:
        raise Refused(f"its records can't be listed: {brief(error)}") from error
    names = [info.filename for info in infos if _DATA.fullmatch(info.filename)]
    if len(names) != 1:
        raise Refused("it has no data.pkl" if not names else "it has several data.pkl")
    folder = names[0].partition("/")[0]
    records = {info.filename.removeprefix(f"{folder}/"): info for info in infos}
    if any(name.startswith("code/") for name in records):
        raise torchscript(file.path)
    if len(records) < len(infos):
        raise Refused("it has two records of one name")
    _check(records.values(), file.size)
    return Archive(file, folder, records)


def torchscript(path: Path) -> CheckpointError:
    return CheckpointError(
        f"checkpoint '{path}' is a TorchScript archive: load it with torch.jit.load and save its "
        "state_dict()"
    )


def _name_of(record: zipfile.ZipInfo) -> bytes:
    """Its name as the archive has it."""
    return record.orig_filename.encode("utf-8" if record.flag_bits & 0x800 else "cp437")


def is_compressed(record: zipfile.ZipInfo) -> bool:
    return record.compress_type != zipfile.ZIP_STORED


def _check(records: Iterable[zipfile.ZipInfo], size: int) -> None:
    inflated = 0
    for record in records:
        name = brief(record.filename)
        if record.flag_bits & 1:
            raise Refused(f"its record {name} is encrypted")
        if record.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(
                f"its record {name} is packed by method {record.compress_type}; torch knows deflate"
            )
        if not is_compressed(record) and record.compress_size != record.file_size:
            raise Refused(f"its record {name} is stored, and of two sizes")
        if record.header_offset + record.compress_size > size:
            raise Refused(f"its record {name} ends behind the file")
        inflated += record.file_size if is_compressed(record) else 0
    if inflated > budget(size):
        raise Refused(
            f"its records would inflate to {inflated:,} bytes, more than is likely of a file of "
            f"{size:,}: if it is yours, pack it again without compression (zip -0)"
        )
