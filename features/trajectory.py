"""Trajectories: how a frozen network's maps step from image to image, as a whole and cell by cell.

A map is a vector per cell, and from image to image the vectors move. A step has a length, and an
angle to the step before. A face that is made image by image steps as far as a real one and turns
more sharply; what the vectors themselves are, which tells one corpus from another, cancels out.

Length and angle of steps of whole embeddings are from ReStraV (Interno et al., 2025, arXiv
2507.00583), the change of length from D3 (Zheng et al., 2025, arXiv 2508.00701). Cells, depths,
units of time, and the face against its surroundings are this program's.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from features.depths import Depth

COLUMNS = (
    "length",  # of the step of the whole map, relative to the map's own length, per second
    "turn",  # angle between the step and the one before, degrees
    "change",  # absolute difference of length from that of the step before, per second
    "cell_length_mean",  # over cells, likewise
    "cell_length_std",
    "cell_length_max",
    "cell_turn_mean",
    "cell_turn_std",
    "cell_turn_max",
    "cell_change_mean",
    "face_length",  # log of the mean length of the face's cells over that of all others
    "face_turn",  # mean turn of the face's cells less that of all others, degrees
    "face_change",  # as face_length
)
NOTHING = 1e-4  # share of a vector's length; a shorter step is rounding
ROWS_AT_ONCE = 16  # bounds the memory

Box = tuple[float, float, float, float]  # left, top, width, height, in shares of the image


def column_names(streams: Sequence[str], depths: Sequence[Depth]) -> list[str]:
    """Return the names of the columns of all streams, such as ``flow 4 turn``."""
    numbers = [depth.number for depth in depths]
    return [f"{s} {n} {column}" for s, n, column in itertools.product(streams, numbers, COLUMNS)]


class Trajectory:
    """Descriptors of one clip's maps, computed as the maps come; the last two are kept.

    Args:
        times: of each map, (T',) float64, seconds.
        face: where the face is; None: in the middle half.

    Example:
        >>> line = torch.linspace(1, 2, 5).reshape(5, 1, 1, 1).expand(5, 2, 2, 3)  # a straight path
        >>> trajectory = Trajectory(np.arange(5) / 25)
        >>> trajectory.add([line])
        >>> trajectory.table()[:, COLUMNS.index("turn")].tolist()
        [nan, nan, 0.0, 0.0, 0.0]
    """

    def __init__(self, times: npt.NDArray[np.float64], face: Box | None = None) -> None:
        self._times, self._face = torch.from_numpy(times), face
        self._last: list[torch.Tensor] = []  # at each depth the last two maps, (2, cells, C)
        self._rows: list[torch.Tensor] = []
        self._n = 0

    def add(self, maps: Sequence[torch.Tensor]) -> None:
        """Take the next n maps of each depth, (n, h, w, C)."""
        for start in range(0, len(maps[0]), ROWS_AT_ONCE):
            self._add([of_depth[start : start + ROWS_AT_ONCE] for of_depth in maps])

    def _add(self, maps: Sequence[torch.Tensor]) -> None:
        n_new, n_before = len(maps[0]), min(self._n, 2)
        times = self._times[self._n - n_before : self._n + n_new]
        rows, last = [], []
        for number, of_depth in enumerate(maps):
            z = of_depth.flatten(1, 2).float()
            if n_before:
                z = torch.cat([self._last[number], z])
            inside = face_cells(self._face, *of_depth.shape[1:3]).to(z.device)
            rows.append(_describe(z, times.diff().to(z), inside)[n_before:])
            last.append(z[-2:].clone())
        self._rows.append(torch.cat(rows, dim=1))
        self._last, self._n = last, self._n + n_new

    def table(self) -> npt.NDArray[np.float32]:
        """Return (T', depths x COLUMNS) float32, a row per map.

        NaN: the first map has no step, the first two no turn and no change, and neither have maps
        without time between them; steps of length 0 have no turn.
        """
        return torch.cat(self._rows).float().cpu().numpy()


def _describe(z: torch.Tensor, seconds: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Describe the steps between maps (m, cells, C): (m, COLUMNS), NaN in the first rows."""
    found = dict.fromkeys(COLUMNS, z.new_full((len(z),), torch.nan))
    seconds = seconds.masked_fill(seconds <= 0, torch.nan)

    def put(column: str, values: torch.Tensor) -> None:
        found[column] = torch.cat([found[column][: len(z) - len(values)], values])

    if len(z) > 1:
        steps = z.diff(dim=0)  # (m-1, cells, C)
        sizes = z.square().sum(2).sqrt()  # (m, cells)
        far = steps.square().sum(2).sqrt()  # (m-1, cells)
        whole = _relative(_length(far), _length(sizes)) / seconds  # (m-1,)
        cells = _relative(far, sizes) / seconds[:, None]  # (m-1, cells)
        put("length", whole)
        put("cell_length_mean", cells.mean(1))
        put("cell_length_std", cells.std(1, correction=0))
        put("cell_length_max", cells.amax(1))
        put("face_length", _log_ratio(cells, inside))
    if len(z) > 2:
        products = (steps[1:] * steps[:-1]).sum(2)  # (m-2, cells)
        moves = cells.nan_to_num() > 0
        turns = _angle(products, far, moves)  # (m-2, cells)
        mean = turns.nanmean(1)
        changes = cells.diff(dim=0).abs()
        put("turn", _angle(products.sum(1), _length(far), whole.nan_to_num() > 0))
        put("change", whole.diff().abs())
        put("cell_turn_mean", mean)
        put("cell_turn_std", (turns - mean[:, None]).square().nanmean(1).sqrt())
        sharpest = turns.nan_to_num(-1).amax(1)
        put("cell_turn_max", sharpest.masked_fill(sharpest < 0, torch.nan))
        put("cell_change_mean", changes.mean(1))
        put("face_turn", turns[:, inside].nanmean(1) - turns[:, ~inside].nanmean(1))
        put("face_change", _log_ratio(changes, inside))
    return torch.stack(list(found.values()), dim=1)


def _length(of_cells: torch.Tensor) -> torch.Tensor:
    """Return the lengths of whole maps, (n,), from those of their cells, (n, cells)."""
    return of_cells.square().sum(1).sqrt()


def _relative(steps: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Return lengths of steps by the mean length of the vectors before and after: 0..2."""
    share = steps / ((sizes[1:] + sizes[:-1]) / 2).clamp(min=torch.finfo(steps.dtype).tiny)
    return share.masked_fill(share <= NOTHING, 0)


def _angle(products: torch.Tensor, lengths: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Return angles between successive steps in degrees; NaN if one of the steps is nothing."""
    least = torch.finfo(products.dtype).tiny
    cosines = products / lengths[1:].clamp(min=least) / lengths[:-1].clamp(min=least)
    angles = cosines.clamp(-1, 1).acos().rad2deg()
    return angles.masked_fill(~(moves[1:] & moves[:-1]), torch.nan)


def _log_ratio(x: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return the log of means of cells inside by those outside; 1 per second is added to both."""
    return torch.log((1 + x[:, inside].mean(1)) / (1 + x[:, ~inside].mean(1)))


def face_cells(face: Box | None, height: int, width: int) -> torch.Tensor:
    """Return the cells whose centres are in the face, (height * width) bool.

    It is the middle half where the face is unknown, or leaves nothing to compare it with.
    """
    left, top, across, down = face or (0.25, 0.25, 0.5, 0.5)
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    inside = ((y >= top) & (y <= top + down))[:, None] & ((x >= left) & (x <= left + across))
    if face and (inside.all() or not inside.any()):
        return face_cells(None, height, width)
    return inside.flatten()
