"""Chunks that were compressed outside HDF5 are read by HDF5, checksums and all."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache.deflate import fletcher32, write_gzip


def write(path, array, rows):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "x",
            shape=array.shape,
            dtype=array.dtype,
            chunks=(rows, *array.shape[1:]),
            compression="gzip",
            fletcher32=True,
        )
        for start in range(0, len(array), rows):
            write_gzip(dataset, array[start : start + rows], start)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("shape", "rows"), [((7, 5, 3), 3), ((6,), 6), ((1, 1000), 1), ((9, 2), 4)]
)
def test_hdf5_reads_what_was_written(tmp_path, dtype, shape, rows):
    array = (np.random.default_rng(0).normal(0, 50, shape)).astype(dtype)
    write(tmp_path / "a.h5", array, rows)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].fletcher32
        assert file["x"].compression == "gzip"
        np.testing.assert_array_equal(file["x"][:], array)


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=3000))
def test_the_checksum_is_hdf5s_own(tmp_path_factory, content):
    """Also of odd lengths, of zeros, and of sums that are multiples of 65535."""
    path = tmp_path_factory.getbasetemp() / "checksum.h5"
    array = np.frombuffer(content, np.uint8)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=array, chunks=array.shape, fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,))
    assert stored[:-4] == content
    assert fletcher32(content) == int.from_bytes(stored[-4:], "little")


@pytest.mark.parametrize("content", [b"\xff\xff" * 3, b"\0\0" * 9, b"\xff\xff\0\0", b"\xff"])
def test_the_checksum_of_edge_cases(tmp_path, content):
    array = np.frombuffer(content, np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", data=array, chunks=array.shape, fletcher32=True)
        _, stored = dataset.id.read_direct_chunk((0,))
    assert fletcher32(content) == int.from_bytes(stored[-4:], "little")


def test_a_flipped_byte_is_noticed(tmp_path):
    write(tmp_path / "a.h5", np.arange(4000, dtype=np.float32).reshape(40, 100), 10)
    with h5py.File(tmp_path / "a.h5") as file:
        info = file["x"].id.get_chunk_info(2)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[info.byte_offset + info.size // 2] ^= 1
    (tmp_path / "a.h5").write_bytes(content)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(OSError, match="read"):
        file["x"][:]
