"""What a person is told about a cache is true."""

import json
import re
import shutil

import cv2
import h5py
import numpy as np
import pytest

from pipeline import farneback
from pipeline.cache import Cache
from pipeline.common.errors import IntegrityError
from pipeline.corpus.reading import read_corpus
from pipeline.extraction.extract_corpus import extract
from pipeline.inspect import describe, describe_clip, main
from pipeline.settings import Settings
from pipeline.viewing.contact_sheet import GAP, MAX_OVERVIEW_WIDTH, contact_sheet


@pytest.fixture(scope="module")
def opened(cache):
    return Cache(cache.folder)


@pytest.fixture(scope="module")
def summary(opened):
    return describe(opened)


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


def line(text, start):
    (found,) = (line for line in text.splitlines() if line.strip().startswith(start))
    return found


def test_clips_are_counted_by_split_and_label(summary, opened):
    for split in ("train", "test"):
        expected = [
            sum(c.split == split and c.label == label for c in opened.clips) for label in (0, 1)
        ]
        assert numbers(line(summary, split)) == expected
    assert "8 clips of 8 videos, 4 identities" in summary


def test_datasets_are_listed_with_shape_and_type(summary):
    table = summary.split("datasets of a clip, and their mean size on disk\n")[1].split("\n\n")[0]
    found = {name: (shape, dtype) for name, shape, dtype, *_ in map(str.split, table.splitlines())}
    assert found == {
        "frames": ("20x72x96x3", "uint8"),
        "flow": ("19x72x96", "uint8"),
        "flow_range": ("19x2", "float32"),
        "timestamps": ("20", "float64"),
        "camera": ("19x6", "float32"),
        "crop": ("4", "int64"),
        "overview": ("72x96", "uint8"),
        "thumbnails": ("4x32x32", "uint8"),
    }


def test_bytes_are_those_on_disk_and_the_ratio_is_to_raw_arrays(summary, cache):
    stored = sum(path.stat().st_size for path in (cache.folder / "shards").iterdir())
    raw = 8 * (20 * 72 * 96 * 3 + 19 * 72 * 96 + 19 * 2 * 4 + 20 * 8 + 4 * 32 * 32)
    raw += 8 * (19 * 6 * 4 + 4 * 8 + 72 * 96)
    said = line(summary, "on disk")
    assert f"{stored / 1e6:.1f} MB in 8 shards" in said
    assert f"{stored / 8 / 1e3:.1f} kB per clip" in said
    assert f"{raw / stored:.2f} times smaller than raw" in said


def test_flow_quantiles_are_those_of_the_stored_ranges(summary, opened):
    largest = np.concatenate([opened.read(clip, "flow_range")[:, 1] for clip in opened.clips])
    low, middle, high = np.quantile(largest, [0.05, 0.5, 0.95])
    said = f"5% {low:.2f}, median {middle:.2f}, 95% {high:.2f} px/frame (of the maps of 8 clips)"
    assert said in summary


def test_settings_and_versions_are_shown(summary, opened):
    assert json.loads(line(summary, "settings").split(maxsplit=1)[1]) == opened.settings
    assert cv2.__version__.split(".")[0] in line(summary, "versions")
    assert line(summary, "flow_backend").endswith(farneback.resolve("auto"))


def test_rejected_files_are_counted_by_reason(summary, corpus):
    after = summary.split("rejected files")[1]
    for reason in set(corpus.rejected.values()):
        count = list(corpus.rejected.values()).count(reason)
        assert re.search(rf"{count} {reason}", after)


def test_one_clip_is_described_with_its_file(opened, corpus):
    clip = opened.clips[0]
    text = describe_clip(opened, clip)
    assert text.splitlines()[0].split() == ["id", clip.id]
    assert line(text, "label").split()[1] == ("real", "fake")[clip.label]
    assert line(text, "identities").split(maxsplit=1)[1] == ", ".join(clip.identities)
    assert line(text, "file ").split(maxsplit=1)[1] == opened.names()[clip.video]
    largest = opened.read(clip, "flow_range")[:, 1]
    assert numbers(line(text, "flow maximum")) == pytest.approx(
        [np.median(largest), largest.max()], abs=0.005
    )


def test_the_command_shows_the_same(call, cache, summary, opened):
    code, out, _ = call(main, cache.folder)
    assert (code, out.strip()) == (0, summary)
    clip = opened.clips[0]
    assert call(main, cache.folder, "--clip", clip.id)[1].strip() == describe_clip(opened, clip)


def test_an_unknown_clip_is_an_error_with_an_id_to_go_by(call, cache, opened):
    code, _, err = call(main, cache.folder, "--clip", "nobody")
    assert code == 2
    assert "nobody" in err and opened.clips[0].id in err


def test_a_folder_that_is_no_cache_is_an_error_with_the_command_that_makes_one(call, tmp_path):
    code, _, err = call(main, tmp_path)
    assert code == 2
    assert "python -m pipeline.extract VIDEOS -o CACHE makes one" in err


# ---------------------------------------------------------------------------------------- verify


def test_a_sound_cache_verifies(call, cache):
    code, out, _ = call(main, cache.folder, "--verify")
    assert code == 0
    assert "8 shards" in out and "every checksum is right" in out


def test_a_flipped_byte_is_4_and_names_the_shard(call, cache, tmp_path):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    shard = folder / "shards/00002.h5"
    with h5py.File(shard) as file:
        (clip,) = file
        chunk = file[clip]["flow"].id.get_chunk_info(0)
    content = bytearray(shard.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    shard.write_bytes(content)
    code, _, err = call(main, folder, "--verify")
    assert code == 4
    assert "shards/00002.h5" in err
    assert "shards/00001.h5" not in err
    assert "Traceback" not in err
    with pytest.raises(IntegrityError):
        Cache(folder).read(Cache(folder).clip(clip), "flow")


# ----------------------------------------------------------------------------------------- sheet


def test_a_sheet_has_frames_above_flow_maps_for_every_clip(cache, tmp_path, call):
    code, out, _ = call(main, cache.folder, "--sheet", tmp_path / "sheet.png")
    assert code == 0
    assert "8 of 8 clips" in out
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    width, height = 112, 84  # of a tile, 96x72 scaled to 112 at its larger side; gaps are 4
    assert picture.shape == (
        8 * (22 + 2 * (height + 4)),
        MAX_OVERVIEW_WIDTH + GAP + 10 * (width + 4),
        3,
    )


def test_a_tile_shows_its_frame_and_below_it_the_map_to_the_next(opened):
    clip = opened.clips[0]
    picture = contact_sheet(opened, [clip], columns=19)
    for n in (0, 7, 18):
        frame = cv2.resize(opened.read(clip, "frames")[n], (112, 84), interpolation=cv2.INTER_AREA)
        flow = cv2.resize(opened.read(clip, "flow")[n], (112, 84), interpolation=cv2.INTER_AREA)
        x = MAX_OVERVIEW_WIDTH + GAP + n * 116
        tile = picture[22 : 22 + 84, x : x + 112]
        np.testing.assert_array_equal(tile[:60], frame[:60])  # a caption is below
        below = picture[22 + 88 : 22 + 88 + 84, x : x + 112]
        np.testing.assert_array_equal(below[:60, :, 0], flow[:60])


def test_a_clip_of_few_frames_has_a_tile_for_each(opened):
    picture = contact_sheet(opened, opened.clips[:1], columns=40)
    assert picture.shape[1] == MAX_OVERVIEW_WIDTH + GAP + 40 * 116
    assert np.all(picture[22:, MAX_OVERVIEW_WIDTH + GAP + 19 * 116 :] == 24)  # paper


def test_a_cache_without_frames_has_a_sheet_of_maps(tmp_path, make_corpus, in_process):
    make_corpus(tmp_path / "videos", (20,), (20,))
    settings = Settings(width=64, height=48, keep_frames=False)
    cache = extract(read_corpus([tmp_path / "videos"]), tmp_path / "cache", settings, in_process)
    assert contact_sheet(cache, cache.clips).shape == (
        2 * (22 + 88),
        MAX_OVERVIEW_WIDTH + GAP + 1160,
        3,
    )


def test_a_sheet_that_cannot_be_written_is_an_error_for_the_user(call, cache, tmp_path):
    sheet = tmp_path / "missing" / "sheet.png"
    code, _, err = call(main, cache.folder, "--sheet", sheet)
    assert code == 2
    assert str(sheet.parent) in err
    assert "bug" not in err and "Traceback" not in err


def test_examples_in_the_help_name_options_that_exist():
    names = {option for parameter in main.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+", main.help)) <= names
