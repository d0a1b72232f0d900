"""Evaluation of a run on videos that it has never seen, beside the controls it has to beat."""

from model.evaluation.evaluation import Evaluation, evaluate
from model.evaluation.other_corpus import evaluate_elsewhere
from model.evaluation.run_comparison import compare_runs

__all__ = ["Evaluation", "compare_runs", "evaluate", "evaluate_elsewhere"]
