"""Own fakes made for one cache: extracted, and then gone."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline import extract as command
from pipeline.cache import Cache
from pipeline.cache.in_progress import WORK
from pipeline.common.csv_files import read_csv
from pipeline.corpus.labelled_video import FAKE, REAL, Video
from pipeline.extraction.extract_corpus import MADE, extract
from pipeline.faces.models import FaceModel
from pipeline.own_fakes import for_a_cache
from pipeline.own_fakes.for_a_cache import make_for_cache
from pipeline.own_fakes.settings import FakeSettings
from pipeline.settings import Settings
from pipeline.splits.protocols import Splitting

FAKES = FakeSettings(per_video=2, kinds=("whole",))  # no face has to be found
SETTINGS = Settings(width=64, height=64, splitting=Splitting(test=0.4, holdout=0))


@pytest.fixture(scope="module")
def real(write_video, moving_texture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in ("REAL", "FAKE"):
        (folder / name).mkdir()
    for n in range(4):
        write_video(folder / "REAL" / f"{n}.mp4", moving_texture(18 + n, seed=n), 25)
    (folder / "REAL" / "broken.mp4").write_bytes(np.random.default_rng(0).bytes(9000))
    for n in range(3):
        write_video(folder / "FAKE" / f"{n}.mp4", moving_texture(18, seed=n)[:, ::-1], 25)
    return folder


@pytest.fixture(scope="module")
def videos(real):
    paths = sorted((real / "REAL").iterdir())
    return [Video(path, REAL, (path.stem,), original=path.stem) for path in paths]


@pytest.fixture(scope="module")
def extract_own(in_process):
    def run(videos, folder, settings=SETTINGS, fakes=FAKES):
        make = functools.partial(make_for_cache, settings=fakes, model=b"")
        return extract(videos, folder, settings, in_process, make)

    return run


@pytest.fixture(scope="module")
def cache(extract_own, videos, tmp_path_factory):
    return extract_own(videos, tmp_path_factory.mktemp("caches") / "own")


def test_a_cache_holds_the_real_videos_and_fakes_of_them_and_nothing_made_is_left(cache, real):
    labels = [clip.label for clip in cache.clips]
    assert (labels.count(REAL), labels.count(FAKE)) == (4, 8)
    assert {c.manipulation for c in cache.clips} == {"", "own:whole"}
    assert not (cache.folder / WORK).exists()
    assert not list(cache.folder.rglob("*.mp4"))
    [rejected] = cache.rejected()
    assert rejected["path"] == str(real / "REAL" / "broken.mp4")


def test_names_say_what_each_was_made_from(cache, real):
    rows = {row["id"]: row["made_from"] for row in read_csv(cache.folder / "names.csv")}
    sources = sorted(str(real / "REAL" / f"{n}.mp4") for n in range(4))
    assert sorted(rows.values()) == sorted(3 * sources)
    for clip in cache.clips:
        assert clip.identities == (Path(rows[clip.video]).stem,)


def test_a_split_keeps_a_fake_with_its_original_and_the_card_says_what_was_made(cache):
    sides = {}
    for clip in cache.clips:
        sides.setdefault(clip.original, set()).add(clip.split)
    assert sorted(map(len, sides.values())) == [1, 1, 1, 1]
    assert {clip.split for clip in cache.clips if clip.label} == {"train", "test"}
    card = (cache.folder / "datacard.md").read_text()
    assert "All 8 fakes are own fakes, made of real videos by data.fakes, by: whole" in card
    assert "real fakes | own fakes |" in card


def test_it_is_found_finished_also_by_what_was_made_before_it_knew_own_fakes(
    cache, extract_own, videos, monkeypatch
):
    monkeypatch.setattr(for_a_cache, "make_fakes", None)
    assert extract_own(videos, cache.folder).sha256 == cache.sha256
    values = {k: v for k, v in cache.settings.items() if k != "own_fakes"}
    assert Settings.from_json(values).own_fakes is None


def test_interrupted_it_goes_on_with_the_fakes_that_were_made(
    cache, extract_own, videos, tmp_path, monkeypatch
):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.extraction.extract_corpus.extract_shards", stop)
        with pytest.raises(KeyboardInterrupt):
            extract_own(videos, tmp_path / "own")
    assert len(list((tmp_path / "own" / MADE).rglob("*.mp4"))) == 12
    monkeypatch.setattr("pipeline.own_fakes.making.write_h264", None)  # none is made again
    resumed = extract_own(videos, tmp_path / "own")
    assert [(c.id, c.source_sha256, c.split) for c in resumed.clips] == [
        (c.id, c.source_sha256, c.split) for c in cache.clips
    ]


def test_a_lost_shard_is_made_again_with_its_fakes(extract_own, videos, tmp_path):
    cache = extract_own(videos, tmp_path / "own")
    lost = cache.folder / cache.shards[0].name
    before = lost.read_bytes()
    lost.unlink()
    assert not extract_own(videos, cache.folder).missing()
    assert lost.read_bytes() == before
    assert not (cache.folder / WORK).exists()


def test_other_fakes_of_a_corpus_test_beside_their_own_real_videos(
    extract_own, videos, real, tmp_path
):
    fakes = [
        Video(path, FAKE, (path.stem,), manipulation="Deepfakes", original=path.stem)
        for path in sorted((real / "FAKE").iterdir())
    ]
    cache = extract_own([*fakes, *videos], tmp_path / "both")
    unseen = [c for c in cache.clips if c.split == "test"]
    assert {c.manipulation for c in unseen if c.label} == {"Deepfakes"}
    train = [c for c in cache.clips if c.split == "train"]
    assert {c.manipulation for c in train if c.label} == {"own:whole"}
    assert {c.original[:5] for c in train} == {"video"}
    assert not {c.original[:5] for c in unseen} & {"video"}


def test_other_settings_of_the_fakes_are_refused(real, cache, monkeypatch, in_process):
    monkeypatch.setattr(command, "find_model", lambda name: FaceModel("yunet", "", b""))
    monkeypatch.setattr(command, "LocalPool", lambda *_: in_process)
    monkeypatch.setattr(command, "FakeSettings", functools.partial(FakeSettings, kinds=("whole",)))
    arguments = [str(real / "REAL"), "--size", "64", "--test", "0.4", "--holdout", "0"]
    folder = cache.folder.with_name("command")

    def run(*more):
        return CliRunner().invoke(command.main, [*arguments, *more, "-o", str(folder)])

    done = run("--own-fakes", "2")
    assert done.exit_code == 0, done.output
    assert "real fakes, " in done.output and "own fakes" in done.output
    assert "there is no fake video" not in done.output
    settings = json.loads(Cache(folder).attrs["settings"])["own_fakes"]
    assert (settings["per_video"], settings["seed"], settings["kinds"]) == (2, 0, ["whole"])
    done = run("--own-fakes", "1")
    assert done.exit_code == 2
    assert "own_fakes.per_video was 2, now 1" in done.output
    done = run("--own-fakes", "1", "--dry-run")
    assert done.exit_code == 2
    assert "use data.fakes first" in done.output
