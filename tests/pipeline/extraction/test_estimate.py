"""A dry run tells what would happen, and changes nothing."""

import re

import pytest

from pipeline.common.errors import SettingsError
from pipeline.corpus.reading import read_corpus
from pipeline.extract import main
from pipeline.extraction.estimate import estimate_extraction
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings
from pipeline.splits.protocols import Splitting


def test_the_command_counts_splits_estimates_and_writes_nothing(
    corpus, call, without_workers, contents
):
    before = contents(corpus.folder)
    code, said, errors = call(main, *corpus.options, "--dry-run", "--jobs", "2")
    assert (code, errors) == (0, "")
    assert re.search(r"\| dfd +\| - +\| - +\| +\d+ \| +1 \|", said)
    assert re.search(r"\| dfd +\| DeepFakeDetection +\| - +\| +0 \| +\d+ \|", said)
    assert "4 identities" in said
    assert "rejected by their names" in said
    assert re.search(r"\| test +\|", said)
    assert re.search(r"about \d+ (seconds|minutes) with 2 processes, [\d.]+ [kM]B", said)
    assert contents(corpus.folder) == before


def test_the_estimated_size_is_near_the_real_one(root, make_corpus, tmp_path, in_process):
    make_corpus(root, (30, 31, 32), (33, 34, 35))
    videos = read_corpus([root])
    settings = Settings(width=64, height=48)
    said = estimate_extraction(videos, settings, in_process)
    cache = extract(videos, tmp_path / "cache", settings, in_process)
    assert "clips of 30 frames" in said
    size, unit = re.search(r"processes, ([\d.]+) (kB|MB)", said).groups()
    foreseen = float(size) * {"kB": 1e3, "MB": 1e6}[unit]
    real = sum(shard.n_bytes for shard in cache.shards)
    assert 0.7 < foreseen / real < 1.4


def test_videos_that_cannot_be_read_are_named(root, make_corpus, cut, in_process):
    files = make_corpus(root, (20, 20), (20, 20))
    cut(files["real0"], 0.01)
    said = estimate_extraction(read_corpus([root]), Settings(width=64, height=48), in_process)
    assert "4 videos were looked into; not usable: " in said
    assert "real0.mp4 (" in said


def test_a_split_that_is_impossible_is_found_out_before_decoding(root, make_corpus, in_process):
    make_corpus(root, (20, 20), (20, 20))
    settings = Settings(splitting=Splitting(by="leave-out:Face2Face"))
    with pytest.raises(SettingsError, match="Face2Face"):
        estimate_extraction(read_corpus([root]), settings, in_process)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "videos"
