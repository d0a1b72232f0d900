"""The data card says what a cache was made of, and what to know about it."""

import dataclasses
import json

import pytest

from data.clips import made_up_clip
from pipeline.cache import Cache
from pipeline.cache.datacard import caveats, write_datacard
from pipeline.corpus.tables import table
from pipeline.settings import Settings

AS_IS = dataclasses.asdict(Settings())


def clip(n, label=0, **facts):
    known = {"id": f"c{n}", "video": f"c{n}", "identities": (f"dfd:{n:02}",), "source": "dfd"}
    return made_up_clip(n, label, **known | facts)


def test_a_cache_has_a_card_with_all_that_it_was_made_of(cache):
    opened = Cache(cache.folder)
    text = (cache.folder / "datacard.md").read_text()
    assert f"8 clips of {opened.attrs['frames']} frames, cut from 8 videos; 96x72 pixels." in text
    assert "4 identities; nobody is known in 0 videos." in text
    for reason, count in json.loads(opened.attrs["rejected"]).items():
        assert any(reason in line and f" {count} |" in line for line in text.splitlines())
    for key, value in opened.settings.items():
        if key != "splitting":
            assert f"- `{key}`: {json.dumps(value)}" in text
    assert "opencv-contrib-python" in text
    assert "By `identity`: test 0.2, val 0, holdout 1 of each label, seed 0." in text


def test_clips_of_one_video_count_once(tmp_path):
    clips = [clip(0), dataclasses.replace(clip(0), id="c0-1"), clip(1, 1)]
    attrs = {"frames": 20, "rejected": "{}", "versions": "{}"}
    write_datacard(tmp_path, clips, extraction=AS_IS, attrs=attrs)
    text = (tmp_path / "datacard.md").read_text()
    assert "3 clips of 20 frames, cut from 2 videos" in text
    assert "| dfd    | -            | -           |    1 |    1 |" in text


def test_own_fakes_are_counted_apart_and_by_kind(tmp_path):
    fakes = ("own:blend", "own:blend+drift", "Deepfakes")
    clips = [clip(0), *(clip(n + 1, 1, manipulation=name) for n, name in enumerate(fakes))]
    attrs = {"frames": 20, "rejected": "{}", "versions": "{}"}
    write_datacard(tmp_path, clips, extraction=AS_IS, attrs=attrs)
    text = (tmp_path / "datacard.md").read_text()
    assert "| dfd    | own fakes    | -           |    0 |    2 |" in text
    assert "Kinds of own fakes, one or several in each: 2 blend, 1 drift." in text
    assert "| train |    1 |          1 |         2 |          4 |" in text
    assert "2 of 3 fakes are own fakes, made of real videos by data.fakes, by: blend, drift" in text
    assert "Fakes that train: own;" in text
    write_datacard(tmp_path, clips[:3], extraction=AS_IS, attrs=attrs)
    text = (tmp_path / "datacard.md").read_text()
    assert "results on them do not tell how a detector does on real fakes" in text
    assert "Fakes that train" not in text


SOUND = [clip(0), clip(1, 1)]


@pytest.mark.parametrize(
    "clips,expected",
    [
        ([clip(0, identities=()), clip(1, 1)], "1 of 2 videos do not state who is in them"),
        ([clip(0, fps=24.0), clip(1, 1, fps=30.0)], "24 to 30 frames/s"),
        ([clip(0, source="a"), clip(1, 1, source="b")], "a has real videos only, b has fakes only"),
        ([clip(0, compression="c23"), clip(1, 1)], "compression gives labels away: unstated has"),
        (
            [clip(0, footage="footage:c0"), clip(1, 1, footage="footage:c0")],
            "2 videos show the same footage as another one (recordings: 1; both real and fake: 1)",
        ),
        ([clip(0, original="dfd:00__kitchen_pan"), clip(1, 1)], "the camera moves in 1 videos"),
        (SOUND, "label noise"),
    ],
)
def test_what_to_beware_of_is_said(clips, expected):
    assert any(expected in caveat for caveat in caveats(clips, AS_IS))


def test_a_sound_corpus_has_no_caveats():
    assert caveats([dataclasses.replace(c, source="mine") for c in SOUND], AS_IS) == []


def test_a_table_is_markdown_whatever_is_in_it():
    assert table(["name", "n"], [["a|b", 5], ["c", 12]]).splitlines() == [
        "| name |  n |",
        "| ---- | -: |",
        "| a\\|b |  5 |",
        "| c    | 12 |",
    ]
