"""A run on videos that it has never seen, beside what it has to beat."""

from typing import TYPE_CHECKING

from pipeline.common.lazy import lazily

if TYPE_CHECKING:
    from model.evaluation.evaluation import Evaluation as Evaluation
    from model.evaluation.evaluation import evaluate as evaluate
    from model.evaluation.other_corpus import evaluate_elsewhere as evaluate_elsewhere
    from model.evaluation.run_comparison import compare_runs as compare_runs

_HOMES = {
    "Evaluation": "model.evaluation.evaluation",
    "compare_runs": "model.evaluation.run_comparison",
    "evaluate": "model.evaluation.evaluation",
    "evaluate_elsewhere": "model.evaluation.other_corpus",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
