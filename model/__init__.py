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
`model.prediction`; `model.fit`, `model.evaluate` and `model.predict` are the commands.
`model.reports` writes reports.
"""

from typing import TYPE_CHECKING

from pipeline.common.lazy import lazily

if TYPE_CHECKING:
    from model.run.run import Run as Run
    from model.run.run import load_run as load_run
    from model.settings import HeadSettings as HeadSettings
    from model.settings import TrainingSettings as TrainingSettings
    from model.training.heads import Head as Head

_HOMES = {
    "Head": "model.training.heads",
    "HeadSettings": "model.settings",
    "Run": "model.run.run",
    "TrainingSettings": "model.settings",
    "load_run": "model.run.run",
}
__all__ = list(_HOMES)
__getattr__ = lazily(__name__, _HOMES)
