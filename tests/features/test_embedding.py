"""A cache of embeddings: what is in it, and that it is the same however it came to be."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import features.embedding
from features.architectures import architecture
from features.backbones import Backbone, load_backbone
from features.embed import main as embed_command
from features.embedding import embed, embed_clip, scaled_maps
from features.motion import NAMES, motion_descriptors
from features.settings import Options
from features.trajectory import COLUMNS
from features.weights import load_model
from pipeline.cache import INDEX, Cache, writing_shard
from pipeline.cache.in_progress import WORK
from pipeline.common.errors import IntegrityError, SettingsError
from pipeline.inspect import main as inspect_command

BOTH = Options(streams=("flow", "frames"), flow_scale=None)
FLOW = Options(streams=("flow",), flow_scale=None)


@pytest.fixture(scope="module")
def embedded(clips, mobilenet, tmp_path_factory):
    return embed(clips, tmp_path_factory.mktemp("embedded") / "cache", mobilenet, BOTH)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


# ----------------------------------------------------------------------------------- what is in it


def test_every_clip_has_its_embeddings_in_half_precision_and_its_motion(clips, embedded):
    assert len(embedded.clips) == 6
    for clip in embedded.clips:
        T = clip.n_frames
        found = {key: value[:2] for key, value in embedded.datasets(clip).items()}
        assert found == {
            "flow": ((T - 1, 1280), np.dtype(np.float16)),
            "frames": ((T - 1, 1280), np.dtype(np.float16)),
            "rows": ((T - 1, 2), np.dtype(np.int64)),
            "motion": ((T - 1, len(NAMES)), np.dtype(np.float32)),
            "trajectory": ((T - 1, 2 * 4 * len(COLUMNS)), np.dtype(np.float32)),
        }


def test_the_values_are_those_of_the_backbone_on_the_stored_arrays(clips, embedded, mobilenet):
    for stream, first in (("flow", 0), ("frames", 1)):
        shown = [clips.read(clip, stream)[first:] for clip in clips.clips]
        vectors = mobilenet.embed_each((images, None) for images in shown)
        for clip, (expected, _) in zip(clips.clips, vectors, strict=True):
            found = embedded.read(clip, stream)
            np.testing.assert_array_equal(found, expected.astype(np.float16))
    for clip in clips.clips:
        motion = motion_descriptors(
            *(clips.read(clip, key) for key in ("flow", "flow_range", "timestamps", "camera"))
        )
        np.testing.assert_array_equal(embedded.read(clip, "motion"), motion)


def test_ids_labels_splits_and_identities_are_those_of_the_source(clips, embedded):
    assert embedded.clips == clips.clips
    assert {clip.split for clip in embedded.clips} == {"train", "test"}
    assert all(clip.identities for clip in embedded.clips)


def test_the_index_names_backbone_weights_preprocessing_and_source(clips, embedded, mobilenet):
    settings = embedded.settings
    assert settings["backbone"] == "mobilenet_v2"
    assert settings["weights"] == "file"
    assert settings["weights_sha256"] == mobilenet.sha256
    assert settings["streams"] == list(BOTH.streams)
    assert settings["precision"] == "float32"
    np.testing.assert_allclose(settings["mean"], [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(settings["std"], [0.229, 0.224, 0.225], rtol=1e-6)
    assert settings["source_sha256"] == clips.sha256
    assert json.loads(embedded.attrs["motion"]) == list(NAMES)
    assert json.loads(embedded.attrs["source_settings"]) == clips.settings
    assert embedded.attrs["frames"] == clips.attrs["frames"]
    assert embedded.attrs["dimension"] == 1280
    assert set(json.loads(embedded.attrs["versions"])) >= {"torch", "torchvision"}


def test_every_checksum_is_right(embedded):
    assert all(fault == "" for _, fault in embedded.verify())


def test_nothing_but_the_index_and_shards_remains(embedded):
    assert sorted(path.name for path in embedded.folder.iterdir()) == [
        "SHA256SUMS",
        "datacard.md",
        INDEX,
        "shards",
    ]


def test_a_cache_without_frames_can_be_embedded_by_its_flow_alone(
    clips, clips_without_frames, mobilenet, embedded, tmp_path
):
    found = embed(clips_without_frames, tmp_path / "out", mobilenet, FLOW)
    for clip in found.clips:
        assert set(found.datasets(clip)) == {"flow", "motion", "rows", "trajectory"}
        np.testing.assert_array_equal(found.read(clip, "flow"), embedded.read(clip, "flow"))


def test_frames_of_a_cache_without_them_are_refused_with_the_way_out(
    clips_without_frames, mobilenet, tmp_path
):
    with pytest.raises(SettingsError, match="--no-frames") as caught:
        embed(clips_without_frames, tmp_path / "out", mobilenet, BOTH)
    assert "--streams flow" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_embeddings_that_half_precision_cannot_hold_are_never_stored(clips, tmp_path):
    state = load_model(architecture("resnet18"), "random:0")[0].state_dict()
    state["layer4.1.bn2.weight"] = state["layer4.1.bn2.weight"] * 1e6
    torch.save(state, tmp_path / "w.pth")
    loud = load_backbone("resnet18", str(tmp_path / "w.pth"), "cpu")
    clip = clips.clips[0]
    arrays = {key: clips.read(clip, key) for key in clips.datasets(clip)}
    assert np.abs(loud.embed(arrays["flow"])).max() > np.finfo(np.float16).max
    try:
        found = embed_clip(arrays, loud, FLOW)
    except SettingsError:
        return
    assert np.isfinite(found["flow"]).all()


# ------------------------------------------------------------------------------ other settings


def test_a_finished_cache_is_taken_as_it_is(clips, embedded, mobilenet):
    before = {path: path.stat().st_mtime_ns for path in embedded.folder.rglob("*")}
    again = embed(clips, embedded.folder, mobilenet, BOTH)
    assert again.sha256 == embedded.sha256
    assert {path: path.stat().st_mtime_ns for path in embedded.folder.rglob("*")} == before


@pytest.fixture(params=["finished", "begun"])
def half_way(request, clips, mobilenet, embedded, tmp_path, monkeypatch):
    """A folder in which the same embedding was finished, or stopped after two shards."""
    if request.param == "finished":
        return embedded.folder
    stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        embed(clips, tmp_path / "begun", mobilenet, BOTH)
    monkeypatch.undo()
    assert (tmp_path / "begun" / WORK).is_dir()
    return tmp_path / "begun"


def stop_after(n_shards, monkeypatch):
    import features.embedding

    write, begun = features.embedding.writing_shard, []

    def stop(folder, name, **kwargs):
        if len(begun) == n_shards:
            raise KeyboardInterrupt
        begun.append(name)
        return write(folder, name, **kwargs)

    monkeypatch.setattr(features.embedding, "writing_shard", stop)


def test_other_weights_are_refused_with_both_checksums(clips, half_way, mobilenet):
    before = contents(half_way)
    other = load_backbone("mobilenet_v2", "random:1", "cpu")
    with pytest.raises(SettingsError, match="was begun with other settings") as caught:
        embed(clips, half_way, other, BOTH)
    assert f"weights_sha256 was '{mobilenet.sha256}', now '{other.sha256}'" in str(caught.value)
    assert "another output folder" in caught.value.hint
    assert contents(half_way) == before


def test_other_streams_are_refused_with_both_lists(clips, half_way, mobilenet):
    message = r"streams was \['flow', 'frames'\], now \['flow'\]"
    with pytest.raises(SettingsError, match=message):
        embed(clips, half_way, mobilenet, FLOW)


def test_another_source_is_refused(clips_without_frames, clips, mobilenet, tmp_path):
    embed(clips, tmp_path / "out", mobilenet, FLOW)
    with pytest.raises(SettingsError, match="source_sha256 was"):
        embed(clips_without_frames, tmp_path / "out", mobilenet, FLOW)


def test_the_output_cannot_be_the_source(clips, mobilenet):
    with pytest.raises(SettingsError, match="written by the extract stage"):
        embed(clips, clips.folder, mobilenet, BOTH)


def test_a_folder_with_something_else_in_it_is_left_alone(clips, mobilenet, tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(SettingsError, match=r"holds something that is not a cache: thesis.txt"):
        embed(clips, tmp_path, mobilenet, BOTH)
    assert contents(tmp_path) == {"thesis.txt": b"dear"}


# ------------------------------------------------------------------------- stopped and gone on


def test_an_interrupted_embedding_goes_on_to_the_same_bytes(
    clips, mobilenet, embedded, tmp_path, monkeypatch
):
    stop_after(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        embed(clips, tmp_path / "out", mobilenet, BOTH)
    monkeypatch.undo()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shards/*.h5")}
    assert len(kept) == 3
    embed(clips, tmp_path / "out", mobilenet, BOTH)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "done twice"
    assert contents(tmp_path / "out") == contents(embedded.folder)


def test_batches_go_on_from_shard_to_shard_and_are_the_same_after_a_stop(
    clips, mobilenet, tmp_path, monkeypatch
):
    n_maps = sum(clip.n_frames - 1 for clip in clips.clips)
    assert len(clips.shards) == len(clips.clips) == 6
    batches = []

    class Counting(Backbone):
        def _forward(self, pictures, windows, **options):
            batches.append(len(windows))
            embeddings, maps = super()._forward(pictures, windows, **options)
            return embeddings + len(windows), maps  # as if its size decided

    values = {field.name: getattr(mobilenet, field.name) for field in fields(Backbone)}
    n = n_maps // 6
    backbone = Counting(**values | {"batch": n + 1})
    monkeypatch.setattr(features.embedding, "MIN_BATCHES_PER_GROUP", 3)  # four clips, then two
    options = Options(streams=("flow",))
    embed(clips, tmp_path / "whole", backbone, options)
    assert batches == [n + 1] * 3 + [n - 3] + [n + 1, n - 1]

    embed(clips, tmp_path / "again", backbone, options)
    (tmp_path / "again" / "shards" / "00001.h5").unlink()
    (tmp_path / "again" / "shards" / "00004.h5").unlink()
    batches.clear()
    embed(clips, tmp_path / "again", backbone, options)
    assert sorted(batches) == sorted([n + 1] * 4 + [n - 3, n - 1])
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    (tmp_path / "again" / "shards" / "00005.h5").unlink()
    batches.clear()
    embed(clips, tmp_path / "again", backbone, options)
    assert batches == [n + 1, n - 1], "the first four clips are embedded already"
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


KILLED = """
import os, signal, sys
from dataclasses import fields
from pathlib import Path
import torch
import features.embedding
from features.architectures import architecture
from features.backbones import Backbone, load_backbone
from features.embedding import embed
from features.settings import Options
from pipeline.cache import Cache

torch.set_num_threads(1)
target, rename = sys.argv[4], Path.replace
def replace(path, new):
    if str(new).endswith(target):
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(path, new)
Path.replace = replace
backbone = load_backbone("mobilenet_v2", sys.argv[3], "cpu")
embed(Cache(sys.argv[1], "extract"), Path(sys.argv[2]), backbone, Options(flow_scale=None))
"""


@pytest.mark.parametrize("where", ["00002.h5", pytest.param(INDEX, marks=pytest.mark.slow)])
def test_a_killed_embedding_goes_on_to_the_same_bytes(
    where, clips, mobilenet, mobilenet_weights, embedded, tmp_path
):
    out = tmp_path / "out"
    arguments = [clips.folder, out, mobilenet_weights, where]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / INDEX).exists()
    assert len(list(out.glob("shards/0*.h5"))) == (2 if where == "00002.h5" else 6)
    embed(clips, out, mobilenet, BOTH)
    assert contents(out) == contents(embedded.folder), "nothing more, nothing less"


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_the_same_command_makes_again_what_is_missing_from_a_finished_cache(
    damage, clips, mobilenet, embedded, tmp_path
):
    out = tmp_path / "out"
    embed(clips, out, mobilenet, BOTH)
    shard = out / "shards" / "00001.h5"
    if damage == "missing":
        shard.unlink()
    else:
        os.truncate(shard, 1000)
    with pytest.raises(IntegrityError) as caught:
        Cache(out, "embed")
    assert "run the command that made this cache again" in caught.value.hint
    embed(clips, out, mobilenet, BOTH)
    assert contents(out) == contents(embedded.folder)


def stored(cache: Cache) -> dict[str, bytes]:
    """All datasets of all clips, by name."""
    keys = [(clip, key) for clip in cache.clips for key in cache.datasets(clip)]
    return {f"{clip.id}/{key}": cache.read(clip, key).tobytes() for clip, key in keys}


@pytest.fixture(scope="module")
def without_trajectories(clips, mobilenet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("without") / "cache"
    options = replace(BOTH, augment=("flip",))
    return embed(clips, folder, replace(mobilenet, with_maps=None, depths=()), options)


def test_a_cache_without_trajectories_gets_them_and_keeps_the_rest(
    clips, mobilenet, embedded, without_trajectories, tmp_path
):
    out = Path(shutil.copytree(without_trajectories.folder, tmp_path / "out"))
    before, expected = stored(without_trajectories), stored(embedded)
    assert not any("trajectory" in key for key in before)
    after = stored(embed(clips, out, mobilenet, replace(BOTH, augment=("flip",))))
    added = {key for key in expected if key.endswith("/trajectory")}
    assert after == before | {key: expected[key] for key in added}
    assert len(added) == 6


def test_adding_trajectories_goes_on_after_a_stop(
    clips, mobilenet, without_trajectories, tmp_path, monkeypatch
):
    options = replace(BOTH, augment=("flip",))
    whole, out = (
        Path(shutil.copytree(without_trajectories.folder, tmp_path / name))
        for name in ("whole", "out")
    )
    embed(clips, whole, mobilenet, options)
    n_written = 0

    def stop(*args, **kwargs):
        nonlocal n_written
        n_written += 1
        if n_written == 4:
            raise KeyboardInterrupt
        return writing_shard(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(features.embedding, "writing_shard", stop)
        embed(clips, out, mobilenet, options)
    embed(clips, out, mobilenet, options)
    assert contents(out) == contents(whole)


def test_other_embeddings_than_these_are_not_added_to(
    clips, mobilenet, without_trajectories, tmp_path
):
    out = Path(shutil.copytree(without_trajectories.folder, tmp_path / "out"))
    with pytest.raises(SettingsError, match="flow_scale was None, now 8"):
        embed(clips, out, mobilenet, replace(BOTH, augment=("flip",), flow_scale=8.0))
    (out / "shards" / "00003.h5").unlink()
    with pytest.raises(IntegrityError, match=r"00003\.h5, whose embeddings should stay"):
        embed(clips, out, mobilenet, replace(BOTH, augment=("flip",)))


# ----------------------------------------------------------------------------------- the command


def test_the_command_says_what_it_made(clips, mobilenet_weights, embedded, run_command, tmp_path):
    done = run_command(
        embed_command, clips.folder, "-o", tmp_path / "out", "--backbone", "mobilenet_v2",
        "--weights", mobilenet_weights, "--device", "cpu", "--flow-scale", "per-map",
        "--precision", "float32",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "6 clips, flow and frames as vectors of 1280 numbers by mobilenet_v2" in done.stdout
    assert "WARNING" not in done.output
    assert contents(tmp_path / "out") == contents(embedded.folder)


def test_depths_are_chosen_named_and_added_to_what_is_there(
    clips, mobilenet_weights, run_command, tmp_path
):
    out = tmp_path / "out"
    arguments = [clips.folder, "-o", out, "--backbone", "mobilenet_v2"]
    arguments += ["--weights", mobilenet_weights, "--device", "cpu", "--streams", "flow"]
    none = run_command(embed_command, *arguments, "--depths", "none")
    assert "trajectories: none" in none.stdout
    precision = Cache(out).settings["precision"]
    for _ in range(2):  # the second time there is nothing to do
        done = run_command(embed_command, *arguments, "--depths", "3,5")
        assert done.exit_code == 0, done.output
        assert "trajectories: depths 3 (28x28), 5 (7x7)" in done.stdout
        cache = Cache(out)
        names = json.loads(cache.attrs["trajectory"])
        assert names[0] == "flow 3 length" and names[-1] == "flow 5 face_change"
        assert cache.read(cache.clips[0], "trajectory").shape[1] == len(names) == 26
        assert cache.settings["precision"] == precision, "that of the embeddings, which stay"
    for depths, message in (("9", "mobilenet_v2 has no depth 9"), ("deep", "neither auto, none")):
        refused = run_command(embed_command, *arguments, "--depths", depths)
        assert refused.exit_code == 2 and message in refused.stderr


def test_streams_come_in_their_fixed_order(clips, run_command, tmp_path):
    arguments = ["--backbone", "mobilenet_v2", "--weights", "random:0", "--device", "cpu"]
    done = run_command(
        embed_command, clips.folder, "-o", tmp_path / "out", *arguments, "--streams", "frames, flow"
    )
    assert done.exit_code == 0, done.output
    assert Cache(tmp_path / "out").settings["streams"] == ["flow", "frames"]


@pytest.mark.parametrize("streams", [",", "sound", "flow,sound", "flow;frames"])
def test_an_unknown_stream_is_refused(streams, clips, run_command, tmp_path):
    done = run_command(embed_command, clips.folder, "-o", tmp_path / "x", "--streams", streams)
    assert done.exit_code == 2
    assert "is not some of flow, frames" in done.stderr


def test_a_cache_of_embeddings_cannot_be_embedded(embedded, run_command, tmp_path):
    done = run_command(
        embed_command, embedded.folder, "-o", tmp_path / "x", "--weights", "random:0"
    )
    assert done.exit_code == 2
    assert "was written by the embed stage, the extract stage is needed" in done.stderr
    assert "hint: python -m pipeline.extract" in done.stderr


def test_a_folder_that_is_no_cache_is_refused(run_command, tmp_path):
    done = run_command(embed_command, tmp_path, "-o", tmp_path / "x", "--weights", "random:0")
    assert done.exit_code == 2
    assert "is not a cache" in done.stderr


def test_without_weights_and_network_nothing_is_made(clips, no_network, run_command, tmp_path):
    done = run_command(embed_command, clips.folder, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: the pretrained weights of resnet18 are neither in")
    assert "hint: put resnet18-" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_fallback_is_loud_and_remembered_in_the_cache(clips, no_network, run_command, tmp_path):
    out = tmp_path / "out"
    done = run_command(
        embed_command, clips.folder, "-o", out, "--device", "cpu", "--fallback", "random:0"
    )
    assert done.exit_code == 0, done.output
    assert "WARNING: falling back to random:0 weights" in done.stderr
    assert "resnet18 are neither in" in done.stderr, "why it falls back"
    assert "has random:0 weights: it was never trained" in done.output
    cache = Cache(out)
    assert cache.settings["weights"] == "random:0"
    assert "random:0" in cache.attrs["backbone"]
    assert "random:0" in run_command(inspect_command, out).stdout


def test_a_fallback_does_not_hide_a_wrong_file(clips, run_command, tmp_path):
    done = run_command(
        embed_command, clips.folder, "-o", tmp_path / "out", "--weights", tmp_path / "typo.pth",
        "--fallback", "random:0",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "no weights at" in done.stderr


def test_help_is_grouped_and_shows_defaults_and_an_example_as_it_is_typed(run_as_main, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, said = run_as_main("features.embed", "--help")
    assert code == 0
    for part in ("The network:", "What is embedded:", "[default: resnet18]", "Exit codes:"):
        assert part in said
    assert "  python -m features.embed caches/dfd -o caches/dfd-resnet18\n" in said


# ------------------------------------------------------------------- scale, every, augmentation


def test_maps_at_one_scale_show_absolute_motion():
    flow = np.array([[[0, 255]], [[0, 255]]], np.uint8)
    ranges = np.float32([[0, 2], [1, 16]])
    np.testing.assert_array_equal(scaled_maps(flow, ranges, 8.0), [[[0, 64]], [[32, 255]]])
    assert scaled_maps(flow, ranges, None) is flow


def test_embeddings_are_of_the_maps_at_the_scale_that_is_asked_for(clips, mobilenet, tmp_path):
    options = Options(streams=("flow",), flow_scale=4.0)
    cache = embed(clips, tmp_path / "out", mobilenet, options)
    clip = clips.clips[0]
    flow, ranges = clips.read(clip, "flow"), clips.read(clip, "flow_range")
    pixels = ranges[:, :1, None] + flow / 255 * np.diff(ranges, axis=1)[:, :, None]
    maps = np.rint(np.clip(pixels / 4, 0, 1) * 255).astype(np.uint8)
    expected = mobilenet.embed(maps).astype(np.float32)
    found = cache.read(cache.clip(clip.id), "flow").astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    with pytest.raises(SettingsError, match=r"flow_scale was 4\.0, now None"):
        embed(clips, tmp_path / "out", mobilenet, FLOW)


def test_copies_are_of_mirrored_pictures_and_have_names_of_their_own(clips, mobilenet, tmp_path):
    options = Options(augment=("flip",), flow_scale=None)
    cache = embed(clips, tmp_path / "out", mobilenet, options)
    clip = cache.clips[0]
    assert set(cache.datasets(clip)) == {
        "flow", "flow-flip", "frames", "frames-flip", "motion", "rows", "trajectory",
    }  # fmt: skip
    mirrored = [np.ascontiguousarray(clips.read(c, "flow")[:, :, ::-1]) for c in clips.clips]
    vectors = mobilenet.embed_each((images, None) for images in mirrored)
    for one, (expected, _) in zip(clips.clips, vectors, strict=True):
        found = cache.read(one, "flow-flip")
        np.testing.assert_array_equal(found, expected.astype(np.float16))
    assert not np.array_equal(cache.read(clip, "flow-flip"), cache.read(clip, "flow"))


@pytest.mark.slow
def test_every_so_many_pictures_and_windows_have_a_row_each(
    clips, mobilenet, video_network, tmp_path
):
    T = clips.attrs["frames"]  # 9
    every = embed(clips, tmp_path / "every", mobilenet, Options(every=3))
    clip = every.clips[0]
    np.testing.assert_array_equal(every.read(clip, "rows"), [[0, 2], [3, 5], [6, 7]])
    assert every.read(clip, "flow").shape == every.read(clip, "frames").shape == (3, 1280)
    assert every.read(clip, "motion").shape == (T - 1, len(NAMES))
    windows = embed(clips, tmp_path / "windows", video_network, Options(streams=("flow",)))
    assert windows.read(clip, "flow").shape == (1, 512)  # eight maps are half a window
    np.testing.assert_array_equal(windows.read(clip, "rows"), [[0, 7]])


def test_the_command_takes_all_of_it(clips, mobilenet_weights, tmp_path, run_command):
    done = run_command(
        embed_command, clips.folder, "-o", tmp_path / "out", "--backbone", "mobilenet_v2",
        "--weights", mobilenet_weights, "--streams", "flow", "--flow-scale", "6", "--every", "2",
        "--augment", "flip", "--precision", "float32", "--batch-size", "3", "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "by mobilenet_v2 on cpu in float32" in done.output
    settings = Cache(tmp_path / "out").settings
    assert (settings["flow_scale"], settings["every"], settings["augment"]) == (6.0, 2, ["flip"])
    for wrong in (
        ["--flow-scale", "fast"], ["--flow-scale", "0"], ["--batch-size", "0"],
        ["--augment", "rotate"], ["--precision", "int8"], ["--every", "0"],
    ):  # fmt: skip
        refused = run_command(embed_command, clips.folder, "-o", tmp_path / "no", *wrong)
        assert refused.exit_code == 2, wrong
