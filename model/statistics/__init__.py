"""Statistics of scores and labels: metrics, intervals, permutation tests, calibration."""
