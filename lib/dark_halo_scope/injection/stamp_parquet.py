"""How a stamp file is written, whoever made the stamps."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Rows of a row group, which a reader decompresses whole.
_ROW_GROUP = 256
# zstd's, for blobs.
_BLOB_LEVEL = 1


def write_parquet(path: Path | BytesIO, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write a stamp file as its rows come, with never more than a few row groups in memory.

    Everything is compressed with zstd, the blobs at its lowest level: on stored (not deflated) stamps that gives the
    bytes of deflating at a tenth of the time, and a host's control, which its rows repeat, costs its bytes once.
    """
    blobs = {name for name in schema.names if name.endswith("_npz")}
    rest = [name for name in schema.names if name not in blobs]
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=dict.fromkeys(blobs, _BLOB_LEVEL),
        use_dictionary=rest,
        write_statistics=rest,
    ) as file:
        held, count = [], 0
        for table in tables:
            held.append(table)
            count += table.num_rows
            if count >= _ROW_GROUP:
                together = pa.concat_tables(held)
                whole = count - count % _ROW_GROUP
                file.write_table(together.slice(0, whole), row_group_size=_ROW_GROUP)
                held, count = [together.slice(whole)], count - whole
        if count:
            file.write_table(pa.concat_tables(held), row_group_size=_ROW_GROUP)


def parquet_bytes(stamps: pa.Table) -> bytes:
    """A stamp file of a few rows, as `write_parquet` writes it."""
    buffer = BytesIO()
    write_parquet(buffer, [stamps], stamps.schema)
    return buffer.getvalue()
