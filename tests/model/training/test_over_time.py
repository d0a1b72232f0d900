"""Statistics over time: NumPy's on what is defined, and gradients without NaN."""

import warnings

import numpy as np
import torch

from model.training.over_time import OVER_TIME, SHIFTED, over_time


def with_gaps():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 9, 3))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0, :, 1] = np.nan
    x[1, :, 2] = np.nan
    x[1, 3, 2] = 2.0  # one step alone has no change
    x[2, :, 0] = 5.0
    return x


def test_statistics_are_those_of_numpy_where_something_is_defined():
    x = with_gaps()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = np.stack(
            [
                np.nanmean(x, 1),
                np.nanstd(x, 1),
                np.nanpercentile(x, 5, axis=1),
                np.nanpercentile(x, 95, axis=1),
                np.nanmean(np.abs(np.diff(x, axis=1)), 1),
            ],
            axis=1,
        )
    found = over_time(torch.from_numpy(x)).numpy()
    assert found.shape == (4, len(OVER_TIME), 3)
    np.testing.assert_allclose(found, expected, atol=1e-11)
    assert np.isnan(found[0, :, 1]).all() and np.isnan(found[1, -1, 2])


def test_gradients_are_numbers_where_the_input_is_undefined_or_constant():
    x = torch.from_numpy(with_gaps()).requires_grad_()
    over_time(x).nan_to_num(0).sum().backward()
    assert not x.grad.isnan().any()


def test_statistics_grow_with_their_sequence_and_shift_as_said():
    x = torch.from_numpy(with_gaps())
    torch.testing.assert_close(over_time(3 * x), 3 * over_time(x), equal_nan=True)
    shift = 7 * torch.tensor(SHIFTED)[:, None]
    torch.testing.assert_close(over_time(x + 7), over_time(x) + shift, equal_nan=True)
