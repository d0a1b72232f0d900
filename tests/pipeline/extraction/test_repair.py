"""An extraction that is run again makes what is missing, damaged or changed, and no more."""

import dataclasses
import json
import os
import shutil

import pytest

from pipeline import farneback
from pipeline.cache import Cache, set_aside_damaged
from pipeline.cache.in_progress import WORK
from pipeline.common.errors import IntegrityError, NothingUsable, Rejected, SettingsError
from pipeline.common.files import sha256_of
from pipeline.corpus.reading import read_corpus
from pipeline.extract import main
from pipeline.extraction import extract_corpus, repair, shard_tasks
from pipeline.extraction.extract_corpus import extract
from pipeline.settings import Settings

SMALL = Settings(width=64, height=48)


def shards(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("shards/?????.h5")}


def _interrupt(*args, **kwargs):
    raise KeyboardInterrupt


# ---------------------------------------------------------------------------------------- again


def test_a_finished_cache_is_not_made_again(corpus, cache, call):
    before = {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")}
    code, said, _ = call(main, *corpus.options, "-o", cache.folder)
    assert code == 0
    assert "was finished before" in said
    assert said.endswith(cache.stdout)
    assert {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*")} == before


def test_a_cache_made_whole_again_is_not_said_to_have_been_finished(
    corpus, cache, tmp_path, call, without_workers
):
    folder = shutil.copytree(cache.folder, tmp_path / "cache")
    (folder / "shards/00001.h5").unlink()
    code, said, errors = call(main, *corpus.options, "-o", folder)
    assert code == 0, errors
    assert "was finished before" not in said
    assert sha256_of(folder / "shards/00001.h5") == sha256_of(cache.folder / "shards/00001.h5")


def test_other_settings_are_refused_by_name(corpus, cache, call):
    code, _, errors = call(main, *corpus.options, "-o", cache.folder, "--stride", "2")
    assert code == 2
    assert "stride was 1, now 2" in errors
    assert "width" not in errors


def test_another_corpus_is_refused(corpus, cache):
    videos = read_corpus(corpus.options[:2])[:-1]
    with pytest.raises(SettingsError, match=r"corpus was '13 files.*now '12 files"):
        extract(
            videos,
            cache.folder,
            Settings(width=96, height=72, flow_backend=farneback.resolve("auto")),
        )


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory, make_corpus):
    folder = tmp_path_factory.mktemp("small") / "videos"
    return folder, make_corpus(folder, (20, 21, 22), (20, 21, 22))


@pytest.fixture(scope="module")
def made(small_corpus, tmp_path_factory, in_process):
    """Caches of `small_corpus`: one that is interrupted before its index, and a finished one."""
    folder, _ = small_corpus
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extract_corpus, "write_index", _interrupt)
        extract(read_corpus([folder]), out / "begun", SMALL, in_process)
    assert len(shards(out / "begun")) == 6
    extract(read_corpus([folder]), out / "finished", SMALL, in_process)
    return out


@pytest.fixture
def begun(small_corpus, made, tmp_path, in_process):
    """The videos, a cache of them that lacks its index, and a function that goes on with it."""
    videos, files = small_corpus
    folder = shutil.copytree(made / "begun", tmp_path / "cache")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files.values()}

    def run(out=folder, *, settings=SMALL):
        return extract(read_corpus([videos]), out, settings, in_process)

    yield files, folder, run
    for path, (content, when) in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
            os.utime(path, ns=(when, when))


def test_an_unfinished_cache_is_not_gone_on_with_under_other_settings(begun):
    _, folder, run = begun
    before = shards(folder)
    with pytest.raises(SettingsError, match="seed was 0, now 1"):
        run(settings=Settings(width=64, height=48, seed=1))
    assert run().attrs["frames"] == 20  # the refusal has changed nothing
    assert shards(folder) == before


def test_a_video_that_was_replaced_meanwhile_is_done_again(
    begun, tmp_path, write_video, moving_texture, contents
):
    files, folder, run = begun
    write_video(files["real1"], moving_texture(25, 64, 48, seed=77))
    run()
    run(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


def test_a_shorter_video_put_in_meanwhile_shortens_all(
    begun, tmp_path, write_video, moving_texture, contents
):
    files, folder, run = begun
    write_video(files["real1"], moving_texture(17, 64, 48, seed=77))
    assert run().attrs["frames"] == 17
    run(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("shard_size", [1, 2])
def test_what_an_earlier_version_began_ends_with_the_same_bytes(
    small_corpus, tmp_path, in_process, monkeypatch, contents, shard_size
):
    videos, _ = small_corpus
    settings = dataclasses.replace(SMALL, shard_size=shard_size)

    def run(out, stop=False):
        with monkeypatch.context() as patch:
            if stop:  # shards and parts are there, but no index
                patch.setattr(shard_tasks._RemainingWork, "_queue_packing", _stop)
                patch.setattr(extract_corpus, "_write_cache", _stop)
            return extract(read_corpus([videos]), out, settings, in_process)

    def _stop(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cache", stop=True)
    notes = tmp_path / "cache" / WORK / "notes.jsonl"
    older = [json.loads(line) for line in notes.read_text().splitlines()]
    files = [(name, note) for one in older for name, note in one.items() if "recipe" in note]
    assert len(files) == (6 if shard_size == 1 else 2)
    for name, note in files:  # no times were noted, and parts had another digest
        del note["seconds"]
        if name.startswith(WORK):
            note["recipe"] = "other"
    notes.write_text("".join(json.dumps(note) + "\n" for note in older))
    run(tmp_path / "cache")
    run(tmp_path / "fresh")
    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")
    assert len(Cache(tmp_path / "cache").timing()) == (0 if shard_size == 1 else 6)


def test_a_video_repaired_meanwhile_is_taken_in(tmp_path, make_corpus, in_process, cut, contents):
    files = make_corpus(tmp_path / "videos", (20, 21, 22), (20, 21))
    whole = {name: path.read_bytes() for name, path in files.items()}
    cut(files["fake0"], 0.5)
    cut(files["fake1"], 0.5)
    with pytest.raises(NothingUsable):
        extract(read_corpus([tmp_path / "videos"]), tmp_path / "cache", SMALL, in_process)
    for name in ("fake0", "fake1"):
        files[name].write_bytes(whole[name])
    for out in ("cache", "fresh"):
        extract(read_corpus([tmp_path / "videos"]), tmp_path / out, SMALL, in_process)
    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")


def test_what_is_lost_of_a_finished_cache_is_made_again(finished, contents):
    folder, whole, run = finished
    others = shards(folder)
    (folder / "shards/00002.h5").unlink()
    run()
    assert contents(folder) == whole
    del others["00002.h5"]
    assert others.items() <= shards(folder).items()


def test_a_damaged_index_is_made_again(finished, contents):
    folder, whole, run = finished
    (folder / "index.h5").write_bytes(b"damaged")
    run()
    assert contents(folder) == whole


def test_a_shard_damaged_before_the_end_is_made_again(begun, made, cut, contents):
    _, folder, run = begun
    cut(folder / "shards/00002.h5", 0.7)
    run()
    assert contents(folder) == contents(made / "finished")


def test_a_shard_of_another_video_is_not_taken_for_this_one(begun, made, contents):
    _, folder, run = begun
    shutil.copy(folder / "shards/00001.h5", folder / "shards/00000.h5")
    run()
    assert contents(folder) == contents(made / "finished")


@pytest.fixture(scope="module")
def packed(small_corpus, tmp_path_factory, in_process, contents):
    """Settings with three videos in a shard, and the bytes of the cache that they make."""
    folder = tmp_path_factory.mktemp("packed") / "cache"
    settings = dataclasses.replace(SMALL, shard_size=3)
    extract(read_corpus([small_corpus[0]]), folder, settings, in_process)
    return settings, contents(folder)


@pytest.mark.parametrize("n_parts", [1, 2, 4])
def test_of_a_shard_of_several_videos_none_is_extracted_twice(
    small_corpus, packed, tmp_path, in_process, monkeypatch, contents, n_parts
):
    videos = read_corpus([small_corpus[0]])
    settings, whole = packed
    extracted = []

    def count(task, extract_video=shard_tasks.extract_video):
        if len(extracted) == n_parts and monkeypatched:
            raise KeyboardInterrupt
        extracted.append(task.path)
        extract_video(task)

    monkeypatch.setattr(shard_tasks, "extract_video", count)
    monkeypatched = True
    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path / "cache", settings, in_process)
    monkeypatched = False
    extract(videos, tmp_path / "cache", settings, in_process)
    assert sorted(extracted) == sorted(str(video.path) for video in videos)
    assert contents(tmp_path / "cache") == whole


def test_a_packed_shard_is_kept_though_one_of_its_videos_timed_out(
    small_corpus, tmp_path, in_process, monkeypatch
):
    folder, files = small_corpus
    settings = dataclasses.replace(SMALL, shard_size=3)
    extracted = []

    def time_out(task, extract_video=shard_tasks.extract_video):
        extracted.append(task.path)
        if task.path == str(files["real1"]):
            raise Rejected("timed out", "after 1 s")
        extract_video(task)

    monkeypatch.setattr(shard_tasks, "extract_video", time_out)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(extract_corpus, "write_index", _interrupt)
        extract(read_corpus([folder]), tmp_path / "cache", settings, in_process)
    before = shards(tmp_path / "cache")
    cache = extract(read_corpus([folder]), tmp_path / "cache", settings, in_process)
    assert sorted(extracted) == sorted(map(str, files.values()))  # nothing was done twice
    assert shards(tmp_path / "cache") == before
    assert [row["reason"] for row in cache.rejected()] == ["timed out"]


# ---------------------------------------------------------------------------------------- repair


@pytest.fixture
def finished(small_corpus, made, tmp_path, in_process, contents):
    """A finished cache with its bytes, and a function that extracts it again."""
    folder = shutil.copytree(made / "finished", tmp_path / "cache")

    def run():
        return extract(read_corpus([small_corpus[0]]), folder, SMALL, in_process)

    return folder, contents(folder), run


@pytest.fixture
def mend(finished, contents):
    """Repair and remake a cache; its bytes, without what was set aside."""
    folder, _, run = finished

    def mended(damaged):
        assert set(set_aside_damaged(folder)) == damaged
        sound = shards(folder)
        run()
        assert sound.items() <= shards(folder).items()  # they were left as they are
        left = {f"{name}.damaged" for name in damaged}
        assert left <= set(contents(folder))
        return {name: sha for name, sha in contents(folder).items() if name not in left}

    return mended


def test_a_damaged_shard_alone_is_made_again_and_no_other_video_is_read(
    finished, mend, monkeypatch
):
    folder, whole, _ = finished
    content = bytearray((folder / "shards/00003.h5").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "shards/00003.h5").write_bytes(content)
    read = []

    def look(path, probe=repair.probe, **how):
        read.append(path)
        return probe(path, **how)

    monkeypatch.setattr(repair, "probe", look)
    monkeypatch.setattr("pipeline.extraction.selection.probe", None)
    assert mend({"shards/00003.h5"}) == whole
    assert len(read) == 1


@pytest.mark.parametrize("name", ["names.csv", "rejected.csv", "datacard.md", "SHA256SUMS"])
def test_a_damaged_file_beside_the_index_is_made_again_with_it(finished, mend, name):
    folder, whole, _ = finished
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 2
    (folder / name).write_bytes(content)
    assert mend({name, "index.h5"}) == whole


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.99])
def test_a_damaged_index_is_found_wherever_it_is_damaged(finished, mend, at):
    folder, whole, _ = finished
    content = bytearray((folder / "index.h5").read_bytes())
    content[int(at * len(content))] ^= 8
    (folder / "index.h5").write_bytes(content)
    assert mend({"index.h5"}) == whole


def test_a_shard_whose_video_has_changed_is_not_made_from_the_new_one(
    begun, write_video, moving_texture
):
    files, folder, run = begun
    cache = run()
    changed = str(files["real0"])
    video = next(id for id, path in cache.names().items() if path == changed)
    (folder / next(clip.shard for clip in cache.clips if clip.video == video)).unlink()
    files["real0"].unlink()
    write_video(files["real0"], moving_texture(20, 64, 48, seed=99))
    with pytest.raises(IntegrityError, match=r"real0.* is no longer what it was"):
        run()
