"""A corpus of own fakes: alike but for the face, resumable, deterministic, ready to extract."""

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from data.fakes import main
from pipeline.common.csv_files import read_csv
from pipeline.common.errors import NothingUsable, Rejected, SettingsError
from pipeline.corpus.labelled_video import FAKE, REAL, Video
from pipeline.corpus.reading import read_corpus
from pipeline.faces import models
from pipeline.own_fakes import corpus as corpus_module
from pipeline.own_fakes import making
from pipeline.own_fakes.corpus import LIST, REJECTED, make_fakes
from pipeline.own_fakes.settings import FakeSettings
from pipeline.video.probe import probe

PEOPLE = 4


@pytest.fixture(scope="module")
def faces(head):
    """Frames of the heads of several people, and their faces, by the number of frames."""
    found = {}
    for n in range(PEOPLE):
        frames, face = head(n + 1, seed=n, n=20 + n, size=(128, 96))
        found[len(frames)] = frames, face
    return found


@pytest.fixture(scope="module")
def real(faces, write_video, tmp_path_factory):
    """A folder of real videos, one of each person, and what is wrong with others."""
    folder = tmp_path_factory.mktemp("heads") / "REAL"
    folder.mkdir()
    for n, (frames, _) in faces.items():
        write_video(folder / f"person{n}.mp4", np.stack(frames), 25)
    write_video(folder / "accident.mp4", np.stack(faces[20][0][:5]), 25)
    write_video(folder / "wall.mp4", np.full((30, 96, 128, 3), 90, np.uint8), 25)
    (folder / "copy.mp4").write_bytes((folder / "person20.mp4").read_bytes())
    (folder / "notes.txt").write_text("filmed in May")
    return folder


@pytest.fixture(scope="module", autouse=True)
def no_detector(faces):
    """Let faces be found by the length of a clip: no detector knows stylised heads."""

    def follow(frames, rate, model):
        if len(frames) not in faces:
            raise Rejected("no face", "nobody")
        return faces[len(frames)][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "follow_face", follow)
        yield


SETTINGS = FakeSettings(per_video=5)


@pytest.fixture(scope="module")
def made(real, in_process, tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "own"
    return make_fakes(read_corpus([real]), out, SETTINGS, b"", in_process)


def decoded(path, format="rgb24"):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format=format) for f in container.decode(video=0)])


def members(made):
    """Real and fake files of each family."""
    return [[made.folder / member.path for member in family] for family in made.families.values()]


def test_every_real_video_has_its_fakes_and_every_other_file_a_reason(made, real):
    assert len(made.families) == PEOPLE
    assert all(len(family) == 1 + SETTINGS.per_video for family in made.families.values())
    assert {Path(path).name: r.reason for path, r in made.rejected.items()} == {
        "accident.mp4": "too short",
        "wall.mp4": "no face",
        "person20.mp4": "duplicate",
        "notes.txt": "not a video",
    }
    rows = read_csv(made.folder / REJECTED)
    assert {row["path"] for row in rows} == set(made.rejected)


def test_nothing_that_a_file_says_of_itself_tells_real_from_fake(made):
    for family in members(made):
        facts = []
        for path in family:
            with av.open(str(path)) as container:
                (stream,) = container.streams
                facts.append(
                    (
                        bytes(stream.codec_context.extradata),  # all settings of the sequence
                        container.metadata,
                        stream.metadata,
                        stream.codec_context.profile,
                        stream.time_base,
                        stream.average_rate,
                        stream.frames,
                        container.duration,
                        path.stat().st_size,
                    )
                )
        assert all(fact == facts[0] for fact in facts)


def test_size_length_and_rate_are_at_chance_over_the_corpus(made):
    fake, values = [], []
    for family in members(made):
        for n, path in enumerate(family):
            video = probe(path)
            fake.append(n > 0)
            values.append([video.n_bytes, video.bit_rate, video.n_packets, video.fps, video.width])
    for column in np.transpose(values):
        assert roc_auc_score(fake, column) == 0.5


def test_quality_and_keyframes_differ_from_video_to_video(made, monkeypatch):
    recipes = set()
    for family in members(made):
        text = family[0].read_bytes()
        at = text.index(b"x264 - core")
        recipes.add(text[at : text.index(b"\0", at)])
        assert all(text[at : at + 1500].split(b"\0")[0] in path.read_bytes() for path in family)
    assert len(recipes) > 1


def test_the_real_one_is_the_video_itself(made, faces):
    for path, family in made.families.items():
        frames = decoded(made.folder / family[0].path).astype(float)
        source = decoded(path).astype(float)
        assert frames.shape == source.shape
        assert np.abs(frames - source).mean() < 6  # grey levels, at the worst quality


def test_masks_have_the_frames_and_pixels_of_their_fake_and_hold_what_was_changed(made):
    inside, outside = [], []
    for family in made.families.values():
        before = decoded(made.folder / family[0].path).astype(float)
        for member in family[1:]:
            masks = decoded(made.folder / member.mask, "gray")
            after = decoded(made.folder / member.path).astype(float)
            assert masks.shape == after.shape[:3]
            assert set(np.unique(masks)) <= {0, 255} and masks.any()
            assert (masks == 255).all() == (member.kinds == ("whole",))
            if member.kinds != ("whole",):
                difference = np.abs(after - before).mean(axis=3)
                inside.append(difference[masks > 0].mean())
                outside.append(difference[masks == 0].mean())
    assert np.mean(inside) > 2 * np.mean(outside)  # where the encoder spreads it


def test_masks_are_smaller_than_the_videos_together(made):
    sizes = {
        name: sum(path.stat().st_size for path in (made.folder / name).iterdir())
        for name in ("fake", "masks")
    }
    assert sizes["masks"] < sizes["fake"]


def test_the_list_is_a_corpus_in_which_pairs_and_swapped_people_are_linked(made):
    videos = read_corpus([made.list])
    assert [video.label for video in videos].count(REAL) == PEOPLE
    assert [video.label for video in videos].count(FAKE) == PEOPLE * SETTINGS.per_video
    rows = {row["path"]: row for row in read_csv(made.list)}
    swaps = [row["identity"] for row in rows.values() if "swap" in row["manipulation"]]
    linked = {name.removeprefix("video:") for pair in swaps for name in pair.split(";")}
    assert linked
    for path, family in made.families.items():
        for member in family:
            row = rows[member.path]
            assert row["original"] == family[0].path
            assert row["source"] == Path(path).parent.parent.name
            assert row["made_from"] == path
            assert row["manipulation"] == ("own:" + "+".join(member.kinds)) * bool(member.kinds)
            people = [name for name in row["identity"].split(";") if name]
            if "swap" in member.kinds:
                assert len(people) == 2
                assert member.donor in row["identity"]
            else:  # nobody is known; summaries of caches go on to say so
                assert len(people) == (row["path"][5:21] in linked)
    originals = [video.original for video in videos]
    assert len(set(originals)) == PEOPLE and all(originals)


def test_swaps_link_no_more_than_two_people_unless_one_is_left_over():
    def partners(n):
        probes = {f"{k}.mp4": type("P", (), {"sha256": f"{k:064}"}) for k in range(n)}
        videos = {path: Video(Path(path), REAL, (path,)) for path in probes}
        return corpus_module._donors(probes, videos, 0)

    even = partners(6)
    assert all(even[even[path]] == path != even[path] for path in even)
    odd = partners(5)
    assert len(odd) == 5 and all(path != donor for path, donor in odd.items())
    assert partners(1) == {}


def test_nobody_is_swapped_across_a_split_that_was_given():
    probes = {f"{k}.mp4": type("P", (), {"sha256": f"{k:064}"}) for k in range(6)}
    splits = ["train"] * 4 + ["test"] * 2
    videos = {
        path: Video(Path(path), REAL, (path,), split)
        for path, split in zip(probes, splits, strict=True)
    }
    donors = corpus_module._donors(probes, videos, 0)
    assert all(videos[path].given == videos[donor].given for path, donor in donors.items())


def test_paths_and_order_do_not_matter_to_the_bytes(made, real, in_process, tmp_path, contents):
    moved = tmp_path / "elsewhere" / "REAL"
    moved.mkdir(parents=True)
    for n, path in enumerate(sorted(real.glob("*.mp4"), reverse=True)):
        shutil.copy(path, moved / f"{n}.mp4")
    again = make_fakes(read_corpus([moved]), tmp_path / "own", SETTINGS, b"", in_process)
    for name in ("real", "fake", "masks"):
        assert contents(again.folder / name) == contents(made.folder / name)


def test_another_seed_makes_other_fakes(made, real, in_process, tmp_path, contents):
    settings = FakeSettings(per_video=5, seed=1)
    other = make_fakes(read_corpus([real]), tmp_path / "own", settings, b"", in_process)
    assert not set(contents(other.folder / "fake").values()) & set(
        contents(made.folder / "fake").values()
    )


def test_a_second_run_makes_only_what_is_missing(
    made, real, in_process, monkeypatch, contents, tmp_path
):
    out = tmp_path / "own"
    shutil.copytree(made.folder, out)
    before = contents(out)
    calls = []

    def counted(family):
        calls.append(family.id)
        return making.make_family(family)

    monkeypatch.setattr(corpus_module, "make_family", counted)
    make_fakes(read_corpus([real]), out, SETTINGS, b"", in_process)
    calls.clear()  # copying changed the times of the files
    make_fakes(read_corpus([real]), out, SETTINGS, b"", in_process)
    assert not calls
    victim = min((out / "fake").iterdir())
    victim.unlink()
    calls.clear()
    make_fakes(read_corpus([real]), out, SETTINGS, b"", in_process)
    assert calls == [victim.name[:16]]
    after = contents(out)
    assert {k: v for k, v in after.items() if not k.startswith("recipes")} == {
        k: v for k, v in before.items() if not k.startswith("recipes")
    }


def test_a_family_that_fails_leaves_no_file(real, in_process, tmp_path, monkeypatch):
    def breaks(path, n_bytes):
        raise Rejected("out of memory")

    monkeypatch.setattr(making, "_pad", breaks)
    with pytest.raises(NothingUsable, match="out of memory"):
        make_fakes(read_corpus([real]), tmp_path / "own", SETTINGS, b"", in_process)
    assert not [
        p for name in ("real", "fake", "masks") for p in (tmp_path / "own" / name).iterdir()
    ]


def test_other_settings_and_other_folders_are_refused(made, real, in_process, tmp_path):
    with pytest.raises(SettingsError, match="seed was 0, now 1"):
        make_fakes(
            read_corpus([real]), made.folder, FakeSettings(per_video=5, seed=1), b"", in_process
        )
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match="something else"):
        make_fakes(read_corpus([real]), tmp_path, SETTINGS, b"", in_process)


def test_without_anybody_to_swap_with_other_kinds_are_taken(real, in_process, tmp_path):
    one = [Video(real / "person21.mp4", REAL)]
    settings = FakeSettings(kinds=("swap", "blend"))
    made = make_fakes(one, tmp_path / "own", settings, b"", in_process)
    assert {member.kinds for member in made.families[str(one[0].path)][1:]} == {("blend",)}
    with pytest.raises(NothingUsable, match="nobody to swap with"):
        make_fakes(one, tmp_path / "no", FakeSettings(kinds=("swap",)), b"", in_process)


def test_length_and_size_are_bounded_alike_for_all(real, in_process, tmp_path):
    one = [Video(real / "person23.mp4", REAL)]
    settings = FakeSettings(per_video=1, kinds=("whole",), seconds=0.72, longest_side=64)
    made = make_fakes(one, tmp_path / "own", settings, b"", in_process)
    for path in members(made)[0]:
        assert decoded(path).shape == (18, 48, 64, 3)


def test_the_command_leaves_fakes_out_and_says_what_to_do_next(
    real, in_process, tmp_path, monkeypatch, write_video, faces
):
    monkeypatch.setattr("data.fakes.LocalPool", lambda *args: in_process)
    (tmp_path / "FAKE").mkdir()
    shutil.copytree(real, tmp_path / "REAL")
    write_video(tmp_path / "FAKE" / "x.mp4", np.stack(faces[20][0]), 25)
    arguments = [tmp_path, "-o", tmp_path / "own", "--kinds", "whole", "--per-video", "1"]
    done = CliRunner().invoke(main, [*map(str, arguments), "--max-rejects", "1"])
    assert "1 fake videos among them are left out" in done.output
    assert "kinds, one or several in a fake: 5 whole" in done.output
    assert "python -m pipeline.extract" in done.output
    assert done.exit_code == 3
    rows = read_csv(tmp_path / "own" / LIST)
    assert {row["manipulation"] for row in rows} == {"", "own:whole"}


def test_without_the_detector_an_error_says_where_to_put_it(real, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "YUNET_URL", (tmp_path / "no.onnx").as_uri())
    done = CliRunner().invoke(main, [str(real), "-o", str(tmp_path / "own")])
    assert done.exit_code == 2
    assert f"put it into {tmp_path / 'home'}" in done.output
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_real_people_from_the_command_to_a_cache(sample_videos, tmp_path, run_command, contents):
    folder = os.environ.get("SAMPLE_MODELS")
    if not folder:
        pytest.skip("needs YuNet's file: set SAMPLE_MODELS to the folder that holds it")
    (tmp_path / "REAL").mkdir()
    for name in ("asl_book", "asl_eat", "asl_bird"):
        shutil.copy(sample_videos / "people" / f"{name}.mkv", tmp_path / "REAL")
    shutil.copy(sample_videos / "long" / "big_buck_bunny_720p.mp4", tmp_path / "REAL")
    arguments = [
        *("data.fakes", tmp_path / "REAL", "--seconds", "1.5", "--jobs", "2"),
        *("--face-detector", Path(folder) / models.YUNET_FILE_NAME),
    ]
    home = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "home")}
    done = run_command(*arguments, "-o", tmp_path / "own", env=home)
    assert done.returncode == 0, done.stderr
    assert "3 real videos, 6 fakes" in done.stdout and "rejected: 1 " in done.stdout
    again = run_command(*arguments, "-o", tmp_path / "again", "--jobs", "1", env=home)
    assert again.returncode == 0, again.stderr
    for name in ("real", "fake", "masks"):
        assert contents(tmp_path / "own" / name) == contents(tmp_path / "again" / name)
    done = run_command(
        *("pipeline.extract", tmp_path / "own" / LIST, "-o", tmp_path / "cache", "--jobs", "2"),
        *("--size", "64x64", "--test", "0.3"),
    )
    assert done.returncode == 0, done.stderr
    assert "9 clips of 45 frames" in done.stdout
