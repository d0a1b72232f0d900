"""Heatmaps of trajectories: which cells' steps add to the log-odds."""

import numpy as np
import torch

from features.backbones import Backbone
from features.trajectory import COLUMNS, Trajectory, face_cells
from model.explanation.heatmaps import Floats, Slope, by_picture, resized, spread_rest
from model.run.run import Run
from model.training.heads import Head
from model.training.sequences import columns_of

MAX_SIDE = 28  # cells
QUANTITIES = ("length", "turn", "change")  # of a cell's steps, as `Trajectory.cells` has them


def trajectory_heat(
    run: Run, slope: Slope, stream: str, trajectory: Trajectory, backbone: Backbone, n: int
) -> Floats:
    """Return what the steps of each cell of n pictures add to the log-odds, (n, h, w) float32.

    A column that is a mean over cells is the sum of their shares, so a cell adds the gradient times
    its difference from the mean of the training clips; columns about the face compare the means of
    two parts. What other columns add is spread evenly, so that each row sums to what the stream's
    columns add. All depths are drawn on the finest grid of at most `MAX_SIDE` cells.

    Args:
        run: a run that uses trajectories.
        slope: of the clip.
        stream: ``flow`` or ``frames``.
        trajectory: of the clip's pictures in this stream, with cells.
        backbone: the run's network.
        n: number of pictures.
    """
    in_all = columns_of(run.config.widths)["trajectory"]
    names = [name.split(maxsplit=1) for name in run.config.trajectory]
    columns = {rest: in_all.start + k for k, (of, rest) in enumerate(names) if of == stream}
    heads = [head for head in run.ensemble.heads if isinstance(head, Head)]
    typical = torch.stack([head.mean for head in heads]).mean(0).numpy()  # (D,)
    cells = dict(zip((depth.number for depth in backbone.depths), trajectory.cells(), strict=True))
    sides = [of_depth.shape[1:3] for of_depth in cells.values()]
    size = max((side for side in sides if max(side) <= MAX_SIDE), default=min(sides))
    heat = np.zeros((len(slope.added), *size), np.float32)
    for number, of_depth in cells.items():
        of_column = {column: columns[f"{number} {column}"] for column in COLUMNS}
        gradient = {c: slope.gradient[:, k, None, None] for c, k in of_column.items()}
        inside = face_cells(trajectory.face, *of_depth.shape[1:3]).numpy()
        inside = inside.reshape(of_depth.shape[1:3])
        placed = np.zeros(of_depth.shape[:3], np.float32)
        for values, quantity in zip(np.moveaxis(of_depth, -1, 0), QUANTITIES, strict=True):
            above = values - typical[of_column[f"cell_{quantity}_mean"]]  # (L, h, w)
            placed += np.nan_to_num(gradient[f"cell_{quantity}_mean"] * above / inside.size)
            parts = ((inside, 1), (~inside, -1)) if not inside.all() else ()  # or they are NaN
            for part, sign in parts:
                share = sign * part / part.sum()
                if quantity != "turn":  # a log ratio of means, to which 1 is added
                    share = share / (1 + values[:, part].mean(1)[:, None, None])
                placed += np.nan_to_num(gradient[f"face_{quantity}"] * above * share)
        heat += resized(placed, size)
    maps = heat[:, None]  # (L, 1, h, w)
    spread_rest(maps, slope.added[:, list(columns.values())].sum(1))
    return by_picture(maps, backbone, n, run.config.options.every)
