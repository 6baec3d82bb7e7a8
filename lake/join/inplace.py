"""Vectors read where they lie: in a file of this machine, one after the other, as they are in memory.

Lance copies what it reads several times, which takes longer than to bring the vectors into bytes. Its file tells where
each page lies and how it is encoded, and vectors of some length are not encoded at all. Only a page that is described
by the very words below is read here; everything else is left to Lance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from lance.file import LanceFileMetadata
from numpy.typing import NDArray

from lake.errors import CorruptTable, StorageError
from lake.nearest.kernel import Floats
from lake.storage import Location

# Neither nulls nor lists of any length, so many values of so many float32, not compressed.
_PAGE = (
    "PageLayout{layout:Some(FullZipLayout(FullZipLayout{bits_rep:0,bits_def:0,num_items:%(items)d,"
    "num_visible_items:%(items)d,value_compression:Some(CompressiveEncoding{compression:Some(FixedSizeList("
    "FixedSizeList{items_per_value:%(dimension)d,has_validity:false,values:Some(CompressiveEncoding{compression:Some("
    "Flat(Flat{bits_per_value:32,data:None,},),),},),},),),},),layers:[RepdefAllValidItem,],"
    "details:Some(BitsPerValue(%(bits)d,),),},),),}"
)


@dataclass(frozen=True, eq=False)
class InPlace:
    """A column of vectors that lie in a file as they are in memory.

    Parameters
    ----------
    path : str
    dimension : int
    starts : int64, shape (pages + 1,)
        The first row of each page, and the number of all.
    positions : int64, shape (pages,)
        Where in the file each page begins.
    """

    path: str
    dimension: int
    starts: NDArray[np.int64]
    positions: NDArray[np.int64]

    @classmethod
    def find(cls, file: Location, described: LanceFileMetadata, column: str) -> Self | None:
        """Find the vectors of a column; ``None`` where they lie on another machine, or are encoded."""
        names = described.schema.names
        if len(described.columns) != len(names):
            return None
        return cls.at(file, described, names.index(column), described.schema.field(column).type)

    @classmethod
    def at(cls, file: Location, described: LanceFileMetadata, column: int, kind: pa.DataType) -> Self | None:
        """Find the vectors of a column whose place among those of the file, and whose type, are known; see `find`."""
        floats = pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()
        if file.scheme != "file" or not floats:
            return None
        dimension = int(kind.list_size)
        items, positions = [0], []
        for page in described.columns[column].pages:
            if len(page.buffers) != 1:
                return None
            held, more = divmod(page.buffers[0].size, 4 * dimension)
            words = _PAGE % {"items": held, "dimension": dimension, "bits": 32 * dimension}
            if more or "".join(page.encoding.split()) != words:
                return None
            items.append(held)
            positions.append(page.buffers[0].position)
        starts = np.cumsum(items)
        if starts[-1] != described.num_rows:
            return None
        return cls(file.uri, dimension, starts, np.array(positions, np.int64))

    def read(self, first: int, found: Floats) -> None:
        """Read vectors, from the first on, into a matrix: float32, shape (count, d), its rows one after the other.

        Raises
        ------
        CorruptTable
            The file is gone, or has become shorter than it was.
        StorageError
            The machine does not give it.
        """
        room = found.view(np.uint8).reshape(-1, copy=False).data
        try:
            with Path(self.path).open("rb") as file:
                for place, part in self._parts(first, len(found)):
                    file.seek(place)
                    if file.readinto(room[part]) < part.stop - part.start:
                        raise CorruptTable(f"{self.path}: ends within the page that begins at byte {place}")
        except FileNotFoundError as error:
            raise CorruptTable(f"{self.path}: is gone") from error
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error}") from error

    def _parts(self, first: int, count: int) -> Iterator[tuple[int, slice]]:
        """Yield, for each page that has some of the rows, their place in the file, and in what is read, in bytes."""
        size, page, read = 4 * self.dimension, int(np.searchsorted(self.starts, first, side="right")) - 1, 0
        while read < count:
            within = first + read - int(self.starts[page])
            some = min(count - read, int(self.starts[page + 1] - self.starts[page]) - within)
            yield int(self.positions[page]) + size * within, slice(size * read, size * (read + some))
            read, page = read + some, page + 1
