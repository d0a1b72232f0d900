"""Numbers about scores and labels: metrics, intervals, chance, calibration, comparisons."""
