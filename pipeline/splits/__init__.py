"""Train, validation, test and holdout splits that share no identity."""
