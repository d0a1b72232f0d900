"""The cache on disk: a folder of HDF5 shards and one index. The only code that knows the layout.

::

    CACHE/
      index.h5               attrs: schema, stage, settings (JSON), versions (JSON), ...
        clips                one compound row per clip, in shuffled order (see `Clip`)
        shards               one compound row per shard: name, size in bytes, sha256 of the file
        data/<clip id>       external link into the shard, by relative path
      shards/00000.h5        <clip id>/<dataset>, chunked by whole rows, fletcher32 on every chunk
      names.csv              id,path: which file a clip came from; nothing that learns reads this
      rejected.csv           path,reason,detail
      datacard.md            what it was made of, for people
      SHA256SUMS             of all files above, as sha256sum writes it
      timing.csv             id,frames,seconds that extracting took; differs from run to run, so
                             that it is not among the checksums

Both stages write this layout; they differ in the datasets inside a clip. Files appear under their
name only when they are whole: written elsewhere, fsynced, renamed, and the folder fsynced.
"""

from pipeline.cache.index import (
    check_same_settings,
    finished_cache,
    readable_cache,
    write_index,
    write_sums,
)
from pipeline.cache.reading import (
    BESIDE,
    DAMAGED_ENDING,
    INDEX,
    SCHEMA,
    SUMS,
    TIMING,
    Cache,
    read_sums,
    set_aside_damaged,
)
from pipeline.cache.rows import Clip, Shard
from pipeline.cache.shards import (
    CHUNK_BYTES,
    COMPRESSIONS,
    DAMAGED,
    Compression,
    ShardWriter,
    Unfilled,
    read_dataset,
    read_shard,
    shard_attrs,
    shard_row,
    write_shard,
    writing_hdf5,
    writing_shard,
)

__all__ = [
    "BESIDE",
    "CHUNK_BYTES",
    "COMPRESSIONS",
    "DAMAGED",
    "DAMAGED_ENDING",
    "INDEX",
    "SCHEMA",
    "SUMS",
    "TIMING",
    "Cache",
    "Clip",
    "Compression",
    "Shard",
    "ShardWriter",
    "Unfilled",
    "check_same_settings",
    "finished_cache",
    "read_dataset",
    "read_shard",
    "read_sums",
    "readable_cache",
    "set_aside_damaged",
    "shard_attrs",
    "shard_row",
    "write_index",
    "write_shard",
    "write_sums",
    "writing_hdf5",
    "writing_shard",
]
