"""Shards and index of a cache on disk; ``docs/cache.md`` describes the files."""

from pipeline.cache.index import (
    check_same_settings,
    finished_cache,
    readable_cache,
    write_index,
    write_sums,
)
from pipeline.cache.layout import (
    CHUNK_BYTES,
    DATACARD,
    INDEX,
    NAMES,
    REJECTED,
    SUMS,
    TIMING,
    Compression,
)
from pipeline.cache.reading import Cache, read_sums, set_aside_damaged
from pipeline.cache.rows import Clip, Shard
from pipeline.cache.shards import (
    IncompleteDataset,
    ShardWriter,
    read_dataset,
    read_shard,
    shard_row,
    writing_shard,
)

__all__ = [
    "CHUNK_BYTES",
    "DATACARD",
    "INDEX",
    "NAMES",
    "REJECTED",
    "SUMS",
    "TIMING",
    "Cache",
    "Clip",
    "Compression",
    "IncompleteDataset",
    "Shard",
    "ShardWriter",
    "check_same_settings",
    "finished_cache",
    "read_dataset",
    "read_shard",
    "read_sums",
    "readable_cache",
    "set_aside_damaged",
    "shard_row",
    "write_index",
    "write_sums",
    "writing_shard",
]
