"""Try fifty settings of a small model, then compare the runs as in a notebook.

    pip install "flightlog[pandas,polars]"
    python examples/sweep.py

The first half trains and logs; the second reads back: which runs were good, how they
learned, and the checkpoint of the best.
"""

import itertools
from pathlib import Path

import numpy as np

import flightlog

RATES = np.geomspace(0.01, 3.0, 10)
STEPS = 60


def main() -> None:
    for rate, batch in itertools.product(RATES, (4, 16, 64, 256, 512)):
        train({"lr": float(rate), "batch_size": batch, "model": {"kind": "linear"}})
    compare()


def train(config: dict[str, object]) -> None:
    """Fit a line through noisy points, log it, and keep what was learned."""
    with flightlog.init(project="sweep", config=config, group="lr x batch") as run:
        run.define_metric("val/loss", summary="min,last", goal="minimize")
        random = np.random.default_rng(0)
        truth = random.normal(size=8)
        inputs = random.normal(size=(1024, 8))
        targets = inputs @ truth + random.normal(scale=0.1, size=1024)
        weights = np.zeros(8)
        for _ in range(STEPS):
            chosen = random.integers(0, 768, run.config.batch_size)
            error = inputs[chosen] @ weights - targets[chosen]
            weights -= run.config.lr * inputs[chosen].T @ error / len(chosen)
            held_out = inputs[768:] @ weights - targets[768:]
            run.log({"loss": np.mean(error**2), "val/loss": np.mean(held_out**2)})
        if not np.mean(held_out**2) < 10:
            run.tags = ("diverged",)
            return
        checkpoint = Path(run.dir) / "weights.npy"
        np.save(checkpoint, weights)
        artifact = flightlog.Artifact(f"weights-{run.id}", type="model")
        artifact.add_file(str(checkpoint))
        run.log_artifact(artifact, aliases=["final"])


def compare() -> None:
    """Find the best run, look at learning curves, and load the best checkpoint."""
    api = flightlog.Api()

    runs = api.runs("sweep", filters={"tags": {"$ne": "diverged"}})
    best = api.runs(
        "sweep",
        filters={"state": "finished", "config.batch_size": {"$gte": 16}},
        order="+summary_metrics.val/loss.min",
    )
    print(f"{len(runs)} runs did not diverge; the best with larger batches:")
    for run in best[:5]:
        loss = run.summary["val/loss"]["min"]
        settings = f"lr {run.config['lr']:.3f}, batch {run.config['batch_size']}"
        print(f"  {run.name:24} {settings:24} {loss:.4f}")

    curves = best.histories(samples=20, keys=["val/loss"], format="pandas")
    median = curves.groupby("_step")["val/loss"].median()
    print(f"median loss: {median.iloc[0]:.3f} at first, {median.iloc[-1]:.3f} at last")
    wide = best.histories(keys=["loss", "val/loss"], format="polars")
    print(f"all curves: {wide.height} rows of {wide.width} columns")

    (artifact,) = best[0].logged_artifacts()
    folder = artifact.download(root="best-checkpoint")
    print(
        f"{artifact.name} is in {folder}: {np.load(Path(folder) / 'weights.npy')[:3]}"
    )


if __name__ == "__main__":
    main()
