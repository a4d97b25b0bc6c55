"""The only place that opens an HDF5 file or a zip. All limits live here.

A weights file is a stranger's data. Nothing outside the file itself is followed (soft and external
links, external and virtual datasets are refused), no object is unpickled, no member is extracted to
disk, no filter plugin is loaded, and what a file claims must be in proportion to its size on disk.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import mmap
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import FileFormatError, KerasishError

MAX_JSON_BYTES = 16 * 2**20
MAX_TEXTS_BYTES = 64 * 2**20  # of one attribute
MAX_JSON_OBJECTS_BYTES = 192 * 2**20  # what the parsed JSON may take, by its brackets and commas
MAX_ARRAY_BYTES = 16 * 2**30
# Keras compresses nothing. Who did it himself won 2 or, with pruned weights, 20; a bomb has 1000.
MAX_EXPANSION = 20
ARRAYS_FREE_BYTES = 32 * 2**20
MEMBER_FREE_BYTES = 16 * 2**20
MAX_ZIP_DIRECTORY_BYTES = 4 * 2**20
MAX_GROUPS = 10_000
MAX_CHILDREN = 100_000
MAX_CHUNKS = 10_000
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
MAX_HEAPS = 100_000
MAX_HEAP_OBJECTS = 1_000_000
_HEAP = re.compile(rb"GCOL\x01(?=...(.{8}))", re.DOTALL)
_DEFLATE, _SHUFFLE = 1, 2


@contextmanager
def damaged_if_it_fails(path: Path) -> Iterator[None]:
    """Whatever HDF5 and zip raise on broken bytes, as one error that names the file."""
    try:
        yield
    except KerasishError:
        raise
    except (
        OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError,
        ArithmeticError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error,
    ) as error:  # fmt: skip
        raise FileFormatError(
            f"{path.name} is damaged or no Keras file: {type(error).__name__}: {error}"
        ) from error


def must_be_a_file(path: Path) -> None:
    """Before anything is opened: a named pipe would be waited for, a device may never end."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file (a pipe, a socket or a device)"
        raise FileFormatError(f"{path} is {what}; pass the path of a file.")


class Budget:
    """How many bytes of arrays may be read. Several files of one model can share one."""

    def __init__(self, *paths: Path) -> None:
        self.on_disk = sum(path.stat().st_size for path in paths)
        self.limit = max(ARRAYS_FREE_BYTES, MAX_EXPANSION * self.on_disk)
        self.left = self.limit

    def spend(self, size: int) -> bool:
        """Take size bytes; False where there are not so many left."""
        if size > min(self.left, MAX_ARRAY_BYTES):
            return False
        self.left -= size
        return True


@dataclass(frozen=True)
class Matrix:
    """Where a matrix lies in one piece, to be read by several threads at once.

    HDF5 reads for one thread at a time, and holds all others up meanwhile.
    """

    path: Path
    source: Path | bytes
    offset: int
    shape: tuple[int, int]
    dtype: np.dtype

    def open(self) -> io.FileIO | io.BytesIO:
        """A handle of one thread's own for :meth:`rows`."""
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        return io.FileIO(self.source)

    def rows(self, file: io.FileIO | io.BytesIO, start: int, into: np.ndarray) -> np.ndarray:
        """As many of the rows from start on as there are and fit in the block: a view of it."""
        block = into[: self.shape[0] - start]
        file.seek(self.offset + start * self.shape[1] * self.dtype.itemsize)
        left = block.data.cast("B")
        while left:
            count = file.readinto(left)
            if not count:
                raise FileFormatError(f"{self.path.name} is cut off in a matrix {self.shape}.")
            left = left[count:]
        return block


class Hdf5:
    """A read-only view of an HDF5 file that follows nothing out of it."""

    def __init__(self, source: Path | bytes, path: Path, budget: Budget | None = None) -> None:
        self.path = path
        self._source = source
        self._size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._budget = Budget(path) if budget is None else budget
        opened: Any = io.BytesIO(source) if isinstance(source, bytes) else source
        self._file = h5py.File(opened, "r")
        self._groups: dict[str, Any] = {"": self._file}
        self._names = {h5py.h5o.get_info(self._file.id).addr: ""}
        self._checked = False  # its heaps
        self._claims: dict[str, dict[int, int]] = {}  # by attribute and number of texts

    def close(self) -> None:
        self._groups.clear()
        self._file.close()

    def _item(self, where: str) -> Any:
        """The group or dataset at a path, or None; every component must be a hard link."""
        parts = [p for p in where.split("/") if p not in ("", ".")]  # as HDF5 reads a path
        known = len(parts)
        while (path := "/".join(parts[:known])) not in self._groups:
            known -= 1
        item: Any = self._groups[path]
        for end in range(known, len(parts)):
            if not isinstance(item, h5py.Group):
                return None
            name, path = parts[end], "/".join(parts[: end + 1])
            link = item.get(name, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise FileFormatError(
                    f"{self.path.name}: {where!r} is a {type(link).__name__}, a pointer to "
                    "elsewhere. Links are refused: they can name any file of this machine."
                )
            item = item[name]
            if isinstance(item, h5py.Group):
                self._remember(item, path)
            # Before its shape is asked: HDF5 opens the sources of a virtual dataset for that.
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise FileFormatError(
                    f"{self.path.name}: the data of {path!r} lie in another file. That is refused."
                )
        return item

    def _remember(self, group: Any, path: str) -> None:
        """Each group has one place: two links to one make loops, and more paths than atoms."""
        first = self._names.setdefault(h5py.h5o.get_info(group.id).addr, path)
        if first != path:
            raise FileFormatError(
                f"{self.path.name}: the groups {path!r} and {first or '/'!r} are one and the same. "
                "Keras writes no such file."
            )
        if len(self._groups) > MAX_GROUPS:
            raise FileFormatError(f"{self.path.name} has more than {MAX_GROUPS} groups.")
        self._groups[path] = group

    def is_group(self, where: str) -> bool:
        return isinstance(self._item(where), h5py.Group)

    def children(self, where: str) -> list[str]:
        """The names in a group, or none. Their order says nothing about the model's."""
        item = self._item(where)
        if not isinstance(item, h5py.Group):
            return []
        names = list(itertools.islice(item, MAX_CHILDREN + 1))
        if len(names) > MAX_CHILDREN:
            raise FileFormatError(
                f"{self.path.name}: {where or 'the root'!r} holds more than {MAX_CHILDREN} things."
            )
        return names

    def shape(self, where: str) -> tuple[int, ...] | None:
        """The claimed shape of a dataset, or None where there is none."""
        item = self._item(where)
        if not isinstance(item, h5py.Dataset) or not item.shape:
            return None
        if math.prod(item.shape) * item.dtype.itemsize > self._budget.limit:
            raise self._bomb(item, where)  # before anything of this shape is made
        return tuple(item.shape)

    def dtype(self, where: str) -> str:
        """The name of a dataset's dtype; ``"float32"`` of what cannot be read, which says so."""
        item = self._item(where)
        if self.is_bfloat16(where):
            return "bfloat16"
        is_float = isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
        is_float = is_float and item.dtype.itemsize <= 8
        return f"float{8 * item.dtype.itemsize}" if is_float else "float32"

    def array(self, where: str) -> np.ndarray:
        """A dataset of floats. bfloat16, which NumPy lacks, comes as float32 (exactly)."""
        item = self._floats(where)
        data = self._unpacked(item, where) if _filters(item) else item[()]
        if item.dtype == np.dtype("V2"):
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        native: np.ndarray = data.astype(data.dtype.newbyteorder("="), copy=False)
        return native

    def matrix(self, where: str) -> Matrix | None:
        """A matrix of floats that lies in the file in one piece, or None where it does not.

        What HDF5 says of its place is believed where its first and last rows are there.
        """
        item = self._item(where)
        whole = isinstance(item, h5py.Dataset) and item.chunks is None and item.ndim == 2
        if not whole or not item.size or not item.dtype.isnative or item.dtype.kind != "f":
            return None
        offset = item.id.get_offset()
        size = item.size * item.dtype.itemsize
        if offset is None or offset + size > self._size or not _is_plain(item):
            return None
        matrix = Matrix(self.path, self._source, offset, tuple(item.shape), item.dtype)
        row = np.empty((1, item.shape[1]), item.dtype)
        with matrix.open() as file:
            for at in {0, len(item) - 1}:
                if matrix.rows(file, at, row).tobytes() != item[at].tobytes():
                    return None
        self._floats(where)  # takes it from the budget
        return matrix

    def _floats(self, where: str) -> Any:
        """A dataset that may be read: of floats, within the budget, in chunks of some size."""
        item = self._item(where)
        if not isinstance(item, h5py.Dataset):
            raise FileFormatError(f"{self.path.name}: there is no dataset {where!r}.")
        bfloat16 = item.dtype == np.dtype("V2")
        if not bfloat16 and (item.dtype.kind != "f" or item.dtype.itemsize > 8):
            raise FileFormatError(
                f"{self.path.name}: {where!r} holds {item.dtype}; weights are floating-point, of "
                "16, 32 or 64 bits."
            )
        if item.shape is None:
            raise FileFormatError(f"{self.path.name}: the dataset {where!r} is empty.")
        size = math.prod(item.shape) * item.dtype.itemsize
        if not self._budget.spend(size):
            raise self._bomb(item, where)
        self._check_chunks(item, where)
        return item

    def must_afford(self, size: int) -> None:
        """Refuse a model whose arrays claim more bytes together than may be read of the file."""
        if size > self._budget.limit:
            raise FileFormatError(
                f"{self.path.name}: the arrays of its LSTMs claim {size} bytes together, in "
                f"{self._budget.on_disk} bytes on disk, of which at most {self._budget.limit} "
                "bytes of arrays are read. Refused as a decompression bomb."
            )

    def _bomb(self, item: Any, where: str) -> FileFormatError:
        size = math.prod(item.shape) * item.dtype.itemsize
        return FileFormatError(
            f"{self.path.name}: {where!r} claims shape {item.shape}, {size} bytes, and stores "
            f"{item.id.get_storage_size()}, in {self._budget.on_disk} bytes on disk, of which at "
            f"most {self._budget.limit} bytes of arrays are read. Refused as a decompression bomb."
        )

    def _check_chunks(self, item: Any, where: str) -> None:
        """A chunk can be far larger than the dataset that it holds a corner of."""
        if item.chunks is None:
            return
        size = math.prod(item.chunks) * item.dtype.itemsize
        counts = [-(-dim // chunk) for dim, chunk in zip(item.shape, item.chunks, strict=True)]
        if size > max(ARRAYS_FREE_BYTES, self._budget.on_disk):
            raise FileFormatError(
                f"{self.path.name}: {where!r} of shape {item.shape} is cut in chunks of {size} "
                "bytes. Refused as a decompression bomb."
            )
        if math.prod(counts) > max(MAX_CHUNKS, self._size // 1024):
            raise FileFormatError(
                f"{self.path.name}: {where!r} of shape {item.shape} is cut in {math.prod(counts)} "
                "chunks, which is too many."
            )

    def _unpacked(self, item: Any, where: str) -> np.ndarray:
        """A compressed dataset. HDF5's own inflate has no limit, so each chunk is inflated here."""
        filters = _filters(item)
        if not set(filters) <= {_DEFLATE, _SHUFFLE} or not _is_plain(item):
            raise FileFormatError(
                f"{self.path.name}: {where!r} of type {item.dtype} has the HDF5 filters {filters}; "
                "only 1 (deflate) and 2 (shuffle) are read. Save it without, by h5repack -f NONE."
            )
        size = math.prod(item.chunks) * item.dtype.itemsize
        data = np.full(item.shape, item.fillvalue, item.dtype)
        steps = (range(0, n, step) for n, step in zip(item.shape, item.chunks, strict=True))
        for offset in itertools.product(*steps):
            info = item.id.get_chunk_info_by_coord(offset)
            if info.byte_offset is None:
                continue
            if info.size > self._size:
                raise FileFormatError(f"{self.path.name}: a chunk of {where!r} is cut off.")
            skipped, raw = item.id.read_direct_chunk(offset)
            for position in reversed(range(len(filters))):
                if skipped >> position & 1:
                    continue
                if filters[position] == _DEFLATE:
                    unpacker = zlib.decompressobj()
                    raw = unpacker.decompress(raw, size + 1)
                elif len(raw) == size:
                    raw = np.frombuffer(raw, np.uint8).reshape(item.dtype.itemsize, -1).T.tobytes()
            if len(raw) != size:
                raise FileFormatError(
                    f"{self.path.name}: a chunk of {where!r} unpacks to "
                    f"{'more' if len(raw) > size else 'less'} than its {size} bytes. Refused as "
                    "damaged, or a decompression bomb."
                )
            chunk = np.frombuffer(raw, item.dtype).reshape(item.chunks)
            ends = [min(o + c, n) for o, c, n in zip(offset, item.chunks, item.shape, strict=True)]
            inside = tuple(map(slice, offset, ends))
            data[inside] = chunk[tuple(slice(e - o) for o, e in zip(offset, ends, strict=True))]
        return data

    def is_bfloat16(self, where: str) -> bool:
        item = self._item(where)
        return isinstance(item, h5py.Dataset) and item.dtype == np.dtype("V2")

    def _attribute(self, item: Any, where: str, attribute: str, what: str) -> list[bytes | str]:
        """The texts of an attribute; its type and its size are looked at before it is read."""
        opened = h5py.h5a.open(item.id, attribute.encode())
        kind, count = opened.get_type(), opened.get_space().get_simple_extent_npoints()
        if count == 0:
            return []  # whatever the type: an empty list has none
        if not isinstance(kind, h5py.h5t.TypeStringID):
            raise FileFormatError(
                f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} is of "
                f"type {kind.dtype if isinstance(kind, _PLAIN) else type(kind).__name__}, not "
                f"{what}."
            )
        most = count * kind.get_size()
        if kind.is_variable_str():  # many of them can be one and the same
            most = self._most_text(attribute, count)
        if most > MAX_TEXTS_BYTES:
            raise FileFormatError(
                f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} is too "
                f"long: {count} texts of up to {most} bytes; {MAX_TEXTS_BYTES} are read."
            )
        value = item.attrs[attribute]
        return [value] if isinstance(value, bytes | str) else np.asarray(value).reshape(-1).tolist()

    def _most_text(self, attribute: str, count: int) -> int:
        """How long the count texts of variable length of any such attribute claim to be together.

        HDF5 allocates what they claim, and h5py cannot ask. So the file's bytes are searched for
        attributes of this name: each holds, after its name, type and shape, for each text a length
        (4 bytes), an address (8) and an index (4).
        """
        self._check_heaps()
        if attribute not in self._claims:
            claims: dict[int, int] = {}
            with _bytes_of(self._source) as data:
                places = (m.start() for m in re.finditer(attribute.encode() + b"\0", data))
                for at in list(itertools.islice(places, MAX_HEAPS)):
                    for held, begin in _texts_at(data, at):
                        words = np.frombuffer(data[begin : begin + 16 * held], "<u4")
                        claim = int(words[::4].sum(dtype=np.int64))
                        claims[held] = max(claims.get(held, 0), claim)
                del places  # it holds the map
            self._claims[attribute] = claims
        return self._claims[attribute].get(count, MAX_TEXTS_BYTES + 1)

    def _check_heaps(self) -> None:
        """The heaps of texts: HDF5 1.14.6 hangs where one has a piece of no size."""
        if self._checked:
            return
        heaps = pieces = 0
        with _bytes_of(self._source) as data:
            usual = data[9:11] if data[8] > 1 else data[13:15]  # bytes of an address, of a size
            if usual != b"\x08\x08":
                raise FileFormatError(f"{self.path.name} is no HDF5 file of 64 bits.")
            found = ((m.start(), int.from_bytes(m[1], "little")) for m in _HEAP.finditer(data))
            for at, size in list(itertools.islice(found, MAX_HEAPS)):
                heaps += 1
                piece, end = at + 16, min(self._size, at + size)
                while piece + 16 <= end and pieces < MAX_HEAP_OBJECTS:
                    length = int.from_bytes(data[piece + 8 : piece + 16], "little")
                    if data[piece : piece + 2] != b"\0\0":
                        length = (16 + -(-length // 8) * 8) % 2**64
                    if length == 0:
                        raise FileFormatError(
                            f"{self.path.name} is damaged: its heap at {at} has a piece of no size."
                        )
                    piece, pieces = piece + length, pieces + 1
            del found  # it holds the map
        if pieces == MAX_HEAP_OBJECTS or heaps == MAX_HEAPS:
            raise FileFormatError(f"{self.path.name} has too many texts of variable length.")
        self._checked = True

    def text(self, where: str, attribute: str) -> str | None:
        """An attribute that is one text, or None where there is none."""
        item = self._item(where)
        if item is None or attribute not in item.attrs:
            return None
        values = self._attribute(item, where, attribute, "a text")
        if len(values) != 1:
            raise FileFormatError(
                f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} has "
                f"{len(values)} values, not a text."
            )
        return _decoded(values[0])

    def texts(self, where: str, attribute: str) -> list[str] | None:
        """An attribute that is a list of texts, in its order, or None where there is none.

        Keras cuts a list that is too long for HDF5 into ``attribute0``, ``attribute1``, ...
        """
        item = self._item(where)
        if item is None:
            return None
        if attribute in item.attrs:
            names = [attribute]
        else:
            numbered = (f"{attribute}{n}" for n in itertools.count())
            names = list(itertools.takewhile(item.attrs.__contains__, numbered))
            if not names:
                return None
        values: list[str] = []
        for name in names:
            values += map(_decoded, self._attribute(item, where, name, "a list of texts"))
            if len(values) > MAX_CHILDREN:
                raise FileFormatError(
                    f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} has "
                    f"more than {MAX_CHILDREN} texts."
                )
        if len(set(values)) < len(values):
            twice = next(v for n, v in enumerate(values) if v in values[:n])
            raise FileFormatError(
                f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} names "
                f"{twice!r} twice."
            )
        return values


class Shards(Hdf5):
    """Several HDF5 files as one: each array lies in one of them, groups in several."""

    def __init__(self, path: Path, files: list[Hdf5]) -> None:
        self.path = path
        self._files = files

    def close(self) -> None:
        for file in self._files:
            file.close()

    def is_group(self, where: str) -> bool:
        return any(file.is_group(where) for file in self._files)

    def children(self, where: str) -> list[str]:
        return list(dict.fromkeys(name for file in self._files for name in file.children(where)))

    def _with(self, where: str) -> Hdf5:
        """The file that has a dataset."""
        return next((f for f in self._files if f.shape(where) is not None), self._files[0])

    def shape(self, where: str) -> tuple[int, ...] | None:
        return self._with(where).shape(where)

    def array(self, where: str) -> np.ndarray:
        return self._with(where).array(where)

    def matrix(self, where: str) -> Matrix | None:
        return self._with(where).matrix(where)

    def must_afford(self, size: int) -> None:
        self._files[0].must_afford(size)

    def dtype(self, where: str) -> str:
        return self._with(where).dtype(where)

    def is_bfloat16(self, where: str) -> bool:
        return self._with(where).is_bfloat16(where)

    def text(self, where: str, attribute: str) -> str | None:
        return next((t for f in self._files if (t := f.text(where, attribute)) is not None), None)

    def texts(self, where: str, attribute: str) -> list[str] | None:
        return next((t for f in self._files if (t := f.texts(where, attribute)) is not None), None)


def _texts_at(data: Any, at: int) -> Iterator[tuple[int, int]]:
    """(number of texts, where their lengths begin) of an attribute whose name is at a place.

    Source: HDF5's file format specification 3.0, IV.A.2.m (versions 1 to 3 of the message).
    """
    for version, head in ((1, 8), (2, 8), (3, 9)):
        if at < head or data[at - head] != version:
            continue
        sizes = struct.unpack_from("<3H", data, at - head + 2)
        name, kind, space = (-(-n // 8) * 8 for n in sizes) if version == 1 else sizes
        begin = at + name + kind
        if begin + 8 > len(data) or at + name >= len(data):
            continue
        shared = version > 1 and data[at - head + 1] & 1
        if not shared and data[at + name] & 15 != 9:  # of variable length
            continue
        rank, first = data[begin + 1], begin + (8 if data[begin] == 1 else 4)
        end = begin + space
        if rank <= 32 and first + 8 * rank <= len(data):
            count = math.prod(struct.unpack_from(f"<{rank}Q", data, first))
            if end + 16 * count <= len(data):
                yield count, end


_PLAIN = (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)


def _decoded(value: bytes | str) -> str:
    if isinstance(value, str):  # h5py keeps bytes that are no UTF-8 as half characters
        value = value.encode("utf8", "surrogateescape")
    return value.decode("utf8", "replace")


def _filters(item: Any) -> list[int]:
    properties = item.id.get_create_plist()
    return [properties.get_filter(n)[0] for n in range(properties.get_nfilters())]


def _is_plain(item: Any) -> bool:
    """Whether its bytes in the file are those of its NumPy dtype."""
    kind = item.id.get_type()
    if item.dtype == np.dtype("V2"):
        return bool(kind.get_size() == 2)
    return bool(kind == h5py.h5t.py_create(item.dtype))


@contextmanager
def _bytes_of(source: Path | bytes) -> Iterator[Any]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON, whose length and number of parts are limited."""
    if len(text) > MAX_JSON_BYTES:
        raise FileFormatError(f"{what} has {len(text)} bytes; at most {MAX_JSON_BYTES} are read.")
    if _memory_of(text) > MAX_JSON_OBJECTS_BYTES:
        raise FileFormatError(f"{what} has too many parts for a model's config.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{what} is no JSON: {type(error).__name__}: {error}") from error


def _memory_of(text: Any) -> int:
    """About what Python's objects of a JSON take, without making them."""
    weights = {"[": 64, "{": 200, ",": 64, ":": 100}
    as_bytes = isinstance(text, bytes)
    return sum(w * text.count(sign.encode() if as_bytes else sign) for sign, w in weights.items())


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    must_be_a_file(path)
    with path.open("rb") as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1), path.name)


class LimitedZip(io.FileIO):
    """A file that gives no zip directory of more than a few MiB: each entry becomes an object."""

    limit: int | None = MAX_ZIP_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit is not None and size is not None and size > self.limit:
            raise FileFormatError(
                f"{Path(str(self.name)).name} is a zip whose directory has {size} bytes; at most "
                f"{self.limit} are read."
            )
        return super().read(-1 if size is None else size) or b""


def zip_members(path: Path, wanted: dict[str, int]) -> dict[str, bytes]:
    """Members of a zip by name, in memory, each with the largest size that is read.

    Raises FileFormatError for a member that is missing, double, too large, encrypted, a bomb or
    compressed otherwise than by deflate.
    """
    found = {}
    with LimitedZip(path) as file, zipfile.ZipFile(file) as archive:
        file.limit = None
        for name, limit in wanted.items():
            members = [m for m in archive.infolist() if m.filename == name]
            if len(members) != 1:
                held = ", ".join(m.filename for m in archive.infolist()[:8])
                raise FileFormatError(
                    f"{path.name} is a zip with {len(members)} members called {name!r}; a .keras "
                    f"file has one. It holds: {held or 'nothing'}."
                )
            member = members[0]
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise FileFormatError(
                    f"{path.name}: {name!r} is compressed by method {member.compress_type}; only 0 "
                    "(none) and 8 (deflate) are read."
                )
            allowed = max(MEMBER_FREE_BYTES, MAX_EXPANSION * member.compress_size)
            if member.file_size > min(limit, allowed):
                raise FileFormatError(
                    f"{path.name}: {name!r} unpacks from {member.compress_size} to "
                    f"{member.file_size} bytes. Refused as a decompression bomb."
                )
            found[name] = _unzipped(archive, member, path)
    return found


def _unzipped(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bytes:
    """A member, bit by bit: ``archive.read`` unpacks all of it, whatever its size claims."""
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise FileFormatError(
            f"{path.name}: {member.filename!r} is not compressed and claims two sizes, "
            f"{member.compress_size} and {member.file_size} bytes."
        )
    data = bytearray()
    with archive.open(member) as opened:
        while part := opened.read(min(2**20, member.file_size + 1 - len(data))):
            data += part
    if len(data) != member.file_size:
        raise FileFormatError(
            f"{path.name}: {member.filename!r} has {len(data)} bytes and claims {member.file_size}."
        )
    return bytes(data)
