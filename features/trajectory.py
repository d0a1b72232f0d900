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
        keep_cells: keep what `cells` returns.

    Example:
        >>> line = torch.linspace(1, 2, 5).reshape(5, 1, 1, 1).expand(5, 2, 2, 3)  # a straight path
        >>> trajectory = Trajectory(np.arange(5) / 25)
        >>> trajectory.add([line])
        >>> trajectory.table()[:, COLUMNS.index("turn")].tolist()
        [nan, nan, 0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        times: npt.NDArray[np.float64],
        face: Box | None = None,
        *,
        keep_cells: bool = False,
    ) -> None:
        self.face = face
        self._times, self._keep_cells = torch.from_numpy(times), keep_cells
        self._last: list[torch.Tensor] = []  # at each depth the last two maps, (2, cells, C)
        self._rows: list[torch.Tensor] = []
        self._cells: list[list[npt.NDArray[np.float32]]] = []  # by part and depth
        self._n = 0

    def add(self, maps: Sequence[torch.Tensor]) -> None:
        """Take the next n maps of each depth, (n, h, w, C)."""
        for start in range(0, len(maps[0]), ROWS_AT_ONCE):
            self._add([of_depth[start : start + ROWS_AT_ONCE] for of_depth in maps])

    def _add(self, maps: Sequence[torch.Tensor]) -> None:
        n_new, n_before = len(maps[0]), min(self._n, 2)
        times = self._times[self._n - n_before : self._n + n_new]
        seconds = times.diff()
        seconds = seconds.masked_fill(seconds <= 0, torch.nan)
        rows, last, cells = [], [], []
        for number, of_depth in enumerate(maps):
            z = of_depth.flatten(1, 2).float()
            if n_before:
                z = torch.cat([self._last[number], z])
            inside = face_cells(self.face, *of_depth.shape[1:3]).to(z.device)
            of_cells, whole = _steps(z, seconds.to(z))
            rows.append(_describe(of_cells, whole, inside)[n_before:])
            last.append(z[-2:].clone())
            if self._keep_cells:
                kept = torch.stack(of_cells, dim=-1)[n_before:].cpu().numpy()
                cells.append(kept.reshape(n_new, *of_depth.shape[1:3], 3))
        self._rows.append(torch.cat(rows, dim=1))
        self._cells.append(cells)
        self._last, self._n = last, self._n + n_new

    def table(self) -> npt.NDArray[np.float32]:
        """Return (T', depths x COLUMNS) float32, a row per map.

        NaN: the first map has no step, the first two no turn and no change, and neither have maps
        without time between them; steps of length 0 have no turn.
        """
        return torch.cat(self._rows).cpu().numpy()

    def cells(self) -> list[npt.NDArray[np.float32]]:
        """Return length, turn and change of the cells at each depth, (T', h, w, 3) each."""
        return [np.concatenate(of_depth) for of_depth in zip(*self._cells, strict=True)]


def _steps(
    z: torch.Tensor, seconds: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Return length, turn and change, as `COLUMNS` has them, of cells and of the whole map.

    Of maps (m, cells, C): (m, cells) each, and (m, 1) each; NaN where undefined.
    """
    steps = z.diff(dim=0)  # (m-1, cells, C)
    far, sizes = steps.norm(dim=2), z.norm(dim=2)  # (m-1, cells), (m, cells)
    products = (steps[1:] * steps[:-1]).sum(2)  # (m-2, cells)
    whole = far.norm(dim=1, keepdim=True), sizes.norm(dim=1, keepdim=True)
    return (
        _quantities(far, sizes, products, seconds),
        _quantities(*whole, products.sum(1, keepdim=True), seconds),
    )


def _quantities(
    far: torch.Tensor, sizes: torch.Tensor, products: torch.Tensor, seconds: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    length, turn, change = (torch.full_like(sizes, torch.nan) for _ in range(3))
    length[1:] = _relative(far, sizes) / seconds[:, None]
    change[2:] = length[1:].diff(dim=0).abs()
    turn[2:] = _angle(products, far, length[1:])
    return length, turn, change


def _describe(
    cells: Sequence[torch.Tensor], whole: Sequence[torch.Tensor], inside: torch.Tensor
) -> torch.Tensor:
    """Describe m maps from what `_steps` returns: (m, COLUMNS)."""
    length, turn, change = cells
    turn_mean = turn.nanmean(1)
    sharpest = turn.nan_to_num(-1).amax(1)
    columns = (
        *(quantity[:, 0] for quantity in whole),
        length.mean(1),
        length.std(1, correction=0),
        length.amax(1),
        turn_mean,
        (turn - turn_mean[:, None]).square().nanmean(1).sqrt(),
        sharpest.masked_fill(sharpest < 0, torch.nan),
        change.mean(1),
        _log_ratio(length, inside),
        turn[:, inside].nanmean(1) - turn[:, ~inside].nanmean(1),
        _log_ratio(change, inside),
    )
    return torch.stack(columns, dim=1)


def _relative(steps: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Return lengths of steps by the mean length of the vectors before and after: 0..2."""
    share = steps / ((sizes[1:] + sizes[:-1]) / 2).clamp(min=torch.finfo(steps.dtype).tiny)
    return share.masked_fill(share <= NOTHING, 0)


def _angle(products: torch.Tensor, far: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return angles between successive steps in degrees; NaN if a step is nothing or unknown."""
    least = torch.finfo(products.dtype).tiny
    cosines = products / far[1:].clamp(min=least) / far[:-1].clamp(min=least)
    moves = lengths > 0
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
