"""Location and faithfulness of heatmaps.

``python -m benchmarks.heatmaps CLIPS RUN WEIGHTS [CORPUS...]`` takes a cache of clips, a run over
its embeddings, the backbone's weights (a file, or imagenet), and demo corpora (data.demo), if it is
of such. No head explains a video that it trained on.

Prints the share of hottest cells, of the hottest fifth, and of all cells (chance) that are
manipulated: in a demo corpus those whose middle lies in the box of the swapped face, else those
where a fake differs from its original, frame by frame. Means over videos, with a 95% bootstrap
interval over linked videos; the same of rankings without a network. Then the fall of the verdict's
log-odds if the hottest or random cells are covered; without trajectories also how they remain when
more cells are covered (deletion) or alone are shown (insertion); and times. The environment
variables ``LIMIT=N`` and ``CURVES=N`` limit the videos of a group and the curves.
"""

import dataclasses
import json
import os
import resource
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from features.embedding import embed_clip, half, stream_images
from features.last_map import weighted_maps
from model.explanation.anomaly import load_anomaly
from model.explanation.explain import explain_clip
from model.explanation.faithfulness import blur_cells, highest_cells, log_odds, verdict_sign
from model.fitting import training_folds
from model.prediction.predict_videos import backbone_of
from model.run.per_video_scores import UNSEEN
from model.run.run import cache_of, load_run
from model.statistics.metrics import with_intervals
from model.training.heads import Ensemble
from model.tuning.trials import load_training
from pipeline.cache import Cache
from pipeline.splits.partition import groups

SHARES = (0.1, 0.2, 0.4, 0.6)  # of cells covered, or shown
HOTTEST = 0.2  # share of cells
WAYS = ("hottest", "random")
BLUR = 2.0  # pixels; differences of compression are smaller than this
MIN_DIFFERENCE = 6.0  # grey levels
SHARE_OF_LARGEST = 0.25  # of a clip's largest differences, less than which is no manipulation


def main():
    clips, folder, weights, *corpora = sys.argv[1:]
    source, run = Cache(Path(clips), "extract"), load_run(Path(folder))
    anomaly = load_anomaly(run.folder)
    backbone = backbone_of(run, weights if Path(weights).is_file() else None, "cpu")
    truth = {}
    for corpus in map(Path, corpora):
        boxes = json.loads((corpus / "truth.json").read_text())
        truth |= {str(corpus.resolve() / path): box for path, box in boxes.items()}
    names = source.names()
    limit = int(os.environ.get("LIMIT", "0")) or None
    max_curves = int(os.environ.get("CURVES", "1000"))
    for group, parts in (("out of fold", by_fold(run)), ("test and holdout", unseen(run))):
        hits, curves, falls = [], [], []
        for clip, unseen_run in islice(parts, limit):
            path = str(Path(names[clip.video]).resolve())
            covers = group != "out of fold" and len(curves) < max_curves
            covers &= "trajectory" not in run.config.streams
            original = original_of(clip, source) if path not in truth else None
            if path not in truth and not original and not covers:
                continue
            arrays = {key: source.read(clip, key) for key in source.datasets(clip)}
            explained = explain_clip(
                unseen_run, arrays, backbone, anomaly=anomaly, faithfulness=True
            )
            falls += explained.faithfulness.items()
            if path in truth:
                found = partial(inside, arrays, clip, truth[path])
                hits.append((clip, shares_in(unseen_run, arrays, explained, found)))
            elif original:
                found = partial(by_share, differing(source, clip, original))
                hits.append((clip, shares_in(unseen_run, arrays, explained, found)))
            if covers:
                curves.append(covering_curve(unseen_run, arrays, explained, backbone))
        print(f"\n{group}: {len(hits)} fakes")
        print_hits(hits)
        for stream in dict.fromkeys(stream for stream, _ in falls):
            of_stream = [found for name, found in falls if name == stream]
            hottest, random = (np.median([getattr(f, way) for f in of_stream]) for way in WAYS)
            print(
                f"{stream}, a fifth covered: median fall of the log-odds {hottest:.3f} (hottest), "
                f"{random:.3f} (random)"
            )
        if curves:
            print(f"\nremaining log-odds of the verdict, {group}: {len(curves)} clips")
            print_curves(curves)
    print_cost(run, backbone, source)


def by_fold(run):
    """Yield fake training clips, each with a run of the head that did not train on it."""
    cache = cache_of(run)
    training = load_training(cache.folder, cache.sha256, run.config.training.streams)
    folds = training_folds(training, run.config.n_heads, run.config.seed)
    for head, (_, val) in zip(run.ensemble.heads, folds, strict=True):
        alone = dataclasses.replace(run, ensemble=Ensemble([head], run.ensemble.crop_length).eval())
        for n in val:
            if training.clips[n].label:
                yield training.clips[n], alone


def unseen(run):
    for clip in cache_of(run).clips:
        if clip.split in UNSEEN:
            yield clip, run


def original_of(clip, source):
    """Return the real clip that a fake was made from, if it is in the cache, else None."""
    real = (c for c in source.clips if clip.original and clip.label and not c.label)
    return next((c for c in real if clip.original in (c.original, c.video)), None)


def differing(source, clip, original):
    """Return where the frames of a fake differ from its original's: (T-1, H, W) bool."""
    fake, real = (source.read(c, "frames")[1:] for c in (clip, original))
    (x, y, w, h), (left, top, across, down) = (source.read(c, "crop") for c in (clip, original))
    height, width = fake.shape[1:3]
    scale = np.array([across / w, down / h])
    offset = np.array([(left - x) / w * width, (top - y) / h * height])
    move = np.column_stack([np.diag(scale), offset]).astype(np.float32)
    difference = []
    for one, other in zip(fake, real, strict=True):
        warped = cv2.warpAffine(other, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
        apart = cv2.absdiff(one, warped).max(2).astype(np.float32)
        difference.append(cv2.GaussianBlur(apart, (0, 0), BLUR))
    found = np.stack(difference)
    return found > max(MIN_DIFFERENCE, SHARE_OF_LARGEST * np.quantile(found, 0.99))


def by_share(region, shape):
    """Return the cells of which more than half are in a region: (T-1, H, W) to (T-1, h, w)."""
    maps = [cv2.resize(m, shape[::-1], interpolation=cv2.INTER_AREA) for m in np.float32(region)]
    return np.stack(maps) > 0.5


def inside(arrays, clip, box, shape):
    """Return which cells have their middle in the box of a map's second frame: (T-1, h, w) bool."""
    height, width = shape
    left, top, across, down = map(int, clip.crop.split(","))
    at = np.rint((arrays["timestamps"][1:]) * box["fps"]).astype(int)
    x, y, w, h = np.array(box["boxes_xywh"])[at].T[:, :, None]  # (T-1, 1)
    columns = left + (np.arange(width) + 0.5) / width * across
    rows = top + (np.arange(height) + 0.5) / height * down
    in_x = (x <= columns) & (columns < x + w)
    in_y = (y <= rows) & (rows < y + h)
    return in_y[:, :, None] & in_x[:, None, :]


def shares_in(run, arrays, explained, truth_at):
    """Return ranking → (hottest cell, hottest fifth, chance) of one video."""
    hits = {}
    for stream, heat in explained.heat.items():
        truth = truth_at(heat.shape[1:])
        if not truth.any():
            continue
        images = stream_images(arrays, stream, run.config.options)
        difference = heat - heat.mean(0)
        rankings = {
            "heat": heat,
            "heat, absolute": abs(heat),
            "heat, mean over the clip": np.broadcast_to(heat.mean(0), heat.shape),
            "heat minus the cell's own mean": difference,
            "heat, smoothed over 5 moments": smoothed(heat),
            "middle of the image": middle(heat.shape),
            "random": np.random.default_rng(0).random(heat.shape),
        }
        if stream == "flow":
            rankings["motion"] = by_cell(images, heat.shape[1:])
        for name, order in rankings.items():
            hits[f"{stream}: {name}"] = (
                truth[highest_cells(order, 1 / truth[0].size)].mean(),
                truth[highest_cells(order, HOTTEST)].mean(),
                truth.mean(),
            )
        weight = np.maximum(explained.contribution, 0) + 1e-9
        first = truth[highest_cells(heat, 1 / truth[0].size)]
        fifth = truth[highest_cells(heat, HOTTEST)].reshape(len(heat), -1).mean(1)
        hits[f"{stream}: heat, moments weighted by contribution"] = (
            np.average(first, weights=weight),
            np.average(fifth, weights=weight),
            truth.mean(),
        )
    return hits


def smoothed(heat):
    padded = np.pad(heat, ((2, 2), (0, 0), (0, 0)), mode="edge")
    return np.mean([padded[n : n + len(heat)] for n in range(5)], axis=0)


def middle(shape):
    rows, columns = (np.abs(np.arange(n) - (n - 1) / 2) / n for n in shape[1:])
    return np.broadcast_to(-(rows[:, None] ** 2 + columns**2), shape)


def by_cell(images, shape):
    """Return the mean speed of each cell of flow maps."""
    rows = [np.array_split(part, shape[1], axis=2) for part in np.array_split(images, shape[0], 1)]
    return np.stack([np.stack([c.mean((1, 2)) for c in r], -1) for r in rows], 1)


def covering_curve(run, arrays, explained, backbone):
    """Return "stream: way" → log-odds of the verdict that remain at each of `SHARES`."""
    options = run.config.options
    embedded = embed_clip(arrays, backbone, options)
    sign = verdict_sign(run, explained.log_odds)
    rng = np.random.default_rng(0)
    curve = {"": [sign * explained.log_odds] * len(SHARES)}
    for stream, heat in explained.heat.items():
        images = stream_images(arrays, stream, options)
        draw = rng.random(heat.shape)
        cells = {
            "deletion, hottest": lambda s, heat=heat: highest_cells(sign * heat, s),
            "deletion, random": lambda s, draw=draw: highest_cells(draw, s),
            "insertion, hottest": lambda s, heat=heat: ~highest_cells(sign * heat, s),
            "insertion, random": lambda s, draw=draw: ~highest_cells(draw, s),
        }
        for way, covered in cells.items():
            curve[f"{stream}: {way}"] = [
                sign
                * log_odds(
                    run,
                    {
                        **embedded,
                        stream: half(backbone.embed(blur_cells(images, covered(s)), options.every)),
                    },
                )
                for s in SHARES
            ]
    return curve


def print_hits(hits):
    linked = np.array(groups([clip.group_keys for clip, _ in hits]))
    for name in dict.fromkeys(name for _, of_video in hits for name in of_video):
        rows = [n for n, (_, of_video) in enumerate(hits) if name in of_video]
        table = np.array([hits[n][1][name] for n in rows])

        def means(some, table=table):
            return dict(
                zip(("first", "fifth", "chance"), table[some].mean(0).tolist(), strict=True)
            )

        values = with_intervals(means, linked[rows])
        print(f"  {name:52} " + "  ".join(f"{key} {value}" for key, value in values.items()))


def print_curves(curves):
    print(f"  {'share':24} " + " ".join(f"{share:24g}" for share in SHARES))
    for name in curves[0]:
        values = np.array([curve[name] for curve in curves])  # (clips, shares)
        low, mid, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
        cells = [f"{m:7.2f} ({a:6.2f} to {b:6.2f})" for a, m, b in zip(low, mid, high, strict=True)]
        print(f"  {name or 'nothing covered':24} " + " ".join(cells))


def print_cost(run, backbone, source):
    images = np.concatenate([source.read(clip, "flow") for clip in source.clips[:3]])[:100]
    by = np.ones((len(images), backbone.dimension), np.float32)
    for name, do in (
        ("embedding", lambda: backbone.embed(images)),
        ("heat", lambda: weighted_maps(backbone, images, by)),
    ):
        before = time.process_time(), time.perf_counter()
        do()
        spent, waited = time.process_time() - before[0], time.perf_counter() - before[1]
        print(f"{backbone.name}: {name} of 100 maps, {waited:.1f} s, {spent:.1f} s of processors")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
