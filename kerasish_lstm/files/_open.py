"""The only place that opens an HDF5 file or a zip. All limits live here.

A weights file is a stranger's data. Nothing outside the file itself is followed (soft and external
links, external and virtual datasets are refused), no object is unpickled, no member is extracted to
disk, and an array's claimed size must be in proportion to what the file really stores.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import FileFormatError, KerasishError

MAX_JSON_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 16 * 2**30
# HDF5 may compress; a weight matrix does not shrink like this, a bomb does.
MAX_EXPANSION = 1000
EXPANSION_FREE_BYTES = 2**20
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"


@contextmanager
def damaged_if_it_fails(path: Path) -> Iterator[None]:
    """Whatever HDF5 and zip raise on broken bytes, as one error that names the file."""
    try:
        yield
    except KerasishError:
        raise
    except (
        OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise FileFormatError(
            f"{path.name} is damaged or no Keras file: {type(error).__name__}: {error}"
        ) from error


class Hdf5:
    """A read-only view of an HDF5 file that follows nothing out of it."""

    def __init__(self, source: Path | bytes, path: Path) -> None:
        self.path = path
        opened: Any = io.BytesIO(source) if isinstance(source, bytes) else source
        self._file = h5py.File(opened, "r")

    def close(self) -> None:
        self._file.close()

    def _item(self, where: str) -> Any:
        """The group or dataset at a path, or None; every component must be a hard link."""
        item: Any = self._file
        for name in where.split("/") if where else []:
            if not isinstance(item, h5py.Group):
                return None
            link = item.get(name, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise FileFormatError(
                    f"{self.path.name}: {where!r} is a {type(link).__name__}, a pointer to "
                    "elsewhere. Links are refused: they can name any file of this machine."
                )
            item = item[name]
        return item

    def is_group(self, where: str) -> bool:
        return isinstance(self._item(where), h5py.Group)

    def children(self, where: str) -> list[str]:
        """The names in a group, or none. Their order says nothing about the model's."""
        item = self._item(where)
        return list(item) if isinstance(item, h5py.Group) else []

    def shape(self, where: str) -> tuple[int, ...] | None:
        """The claimed shape of a dataset, or None where there is none."""
        item = self._item(where)
        return tuple(item.shape) if isinstance(item, h5py.Dataset) and item.shape else None

    def array(self, where: str) -> np.ndarray:
        """A dataset of floats. bfloat16, which NumPy lacks, comes as float32 (exactly)."""
        item = self._item(where)
        if not isinstance(item, h5py.Dataset):
            raise FileFormatError(f"{self.path.name}: there is no dataset {where!r}.")
        if item.external or item.is_virtual:
            raise FileFormatError(
                f"{self.path.name}: the data of {where!r} lie in another file. That is refused."
            )
        bfloat16 = item.dtype == np.dtype("V2")
        if item.dtype.kind != "f" and not bfloat16:
            raise FileFormatError(
                f"{self.path.name}: {where!r} holds {item.dtype}; weights are floating-point."
            )
        size, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
        if size > MAX_ARRAY_BYTES or size > max(EXPANSION_FREE_BYTES, MAX_EXPANSION * stored):
            raise FileFormatError(
                f"{self.path.name}: {where!r} claims shape {item.shape}, {size} bytes, and stores "
                f"{stored}. Refused as a decompression bomb."
            )
        data: np.ndarray = item[()]
        if bfloat16:
            return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        return data.astype(data.dtype.newbyteorder("="), copy=False)

    def is_bfloat16(self, where: str) -> bool:
        item = self._item(where)
        return isinstance(item, h5py.Dataset) and item.dtype == np.dtype("V2")

    def text(self, where: str, attribute: str) -> str | None:
        """An attribute that is one text, or None where there is none."""
        item = self._item(where)
        if item is None or attribute not in item.attrs:
            return None
        value = item.attrs[attribute]
        if isinstance(value, bytes | np.bytes_):
            value = value.decode("utf8", "replace")
        if not isinstance(value, str):
            raise FileFormatError(
                f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} is a "
                f"{type(value).__name__}, not a text."
            )
        if len(value) > MAX_JSON_BYTES:
            raise FileFormatError(f"{self.path.name}: the attribute {attribute!r} is too long.")
        return str(value)

    def texts(self, where: str, attribute: str) -> list[str] | None:
        """An attribute that is a list of texts, in its order, or None where there is none.

        Keras cuts a list that is too long for HDF5 into ``attribute0``, ``attribute1``, ...
        """
        item = self._item(where)
        if item is None:
            return None
        if attribute in item.attrs:
            chunks = [item.attrs[attribute]]
        else:
            chunks, n = [], 0
            while f"{attribute}{n}" in item.attrs:
                chunks.append(item.attrs[f"{attribute}{n}"])
                n += 1
            if not chunks:
                return None
        values = [v for chunk in chunks for v in np.asarray(chunk).reshape(-1).tolist()]
        if not all(isinstance(v, bytes | str) for v in values):
            raise FileFormatError(
                f"{self.path.name}: the attribute {attribute!r} of {where or 'the root'!r} is not "
                "a list of texts."
            )
        return [v.decode("utf8", "replace") if isinstance(v, bytes) else v for v in values]


def parse_json(text: str | bytes, what: str) -> Any:
    if len(text) > MAX_JSON_BYTES:
        raise FileFormatError(f"{what} has {len(text)} bytes; at most {MAX_JSON_BYTES} are read.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{what} is no JSON: {type(error).__name__}: {error}") from error


def zip_members(path: Path, wanted: dict[str, int]) -> dict[str, bytes]:
    """Members of a zip by name, in memory, each with the largest size that is read.

    Raises FileFormatError for a member that is missing, double, too large or a bomb.
    """
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name, limit in wanted.items():
            members = [m for m in archive.infolist() if m.filename == name]
            if len(members) != 1:
                held = ", ".join(m.filename for m in archive.infolist()[:8])
                raise FileFormatError(
                    f"{path.name} is a zip with {len(members)} members called {name!r}; a .keras "
                    f"file has one. It holds: {held or 'nothing'}."
                )
            member = members[0]
            allowed = max(EXPANSION_FREE_BYTES, MAX_EXPANSION * member.compress_size)
            if member.file_size > min(limit, allowed):
                raise FileFormatError(
                    f"{path.name}: {name!r} unpacks from {member.compress_size} to "
                    f"{member.file_size} bytes. Refused as a decompression bomb."
                )
            found[name] = archive.read(member)
    return found
