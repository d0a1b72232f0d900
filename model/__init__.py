"""From a cache of embeddings to a trained temporal head, its evaluation and predictions.

Example::

    from pathlib import Path
    from model import TrainingSettings, load_run
    from model.evaluation import evaluate
    from model.fitting import fit
    from model.prediction import backbone_of, predict
    from pipeline import Cache

    if __name__ == "__main__":
        embeddings = Cache("caches/dfd-resnet18")
        run = fit(embeddings, Path("runs/first"), settings=TrainingSettings())
        print(evaluate(run, embeddings).metrics["detector"]["test"]["auc_roc"])

        run = load_run(Path("runs/first"))
        for verdict in predict(run, [Path("some_video.mp4")], backbone_of(run)):
            print(verdict.verdict, verdict.probability)

`fit`, `evaluate` and `predict` are in `model.fitting`, `model.evaluation` and
`model.prediction`, because `model.fit`, `model.evaluate` and `model.predict` are the commands.
`model.reports` writes reports.
"""

from typing import TYPE_CHECKING, Any

import pipeline  # noqa: F401  # first: it reports libraries that are missing
from model.run.run import Run, load_run
from model.settings import HeadSettings, TrainingSettings

if TYPE_CHECKING:
    from model.training.heads import Head

__all__ = ["Head", "HeadSettings", "Run", "TrainingSettings", "load_run"]


def __getattr__(name: str) -> Any:
    """Import PyTorch for the name that needs it, not for ``--help``."""
    if name == "Head":
        from model.training.heads import Head

        return Head
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
