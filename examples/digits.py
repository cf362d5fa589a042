"""Train a small classifier on scikit-learn's digits, with plain numpy, and log it.

    pip install flightlog scikit-learn
    python examples/digits.py

The daemon is started by `flightlog.init()`; nothing else need run.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import flightlog

CONFIG = {"lr": 0.5, "steps": 300, "batch_size": 128, "hidden": 32, "seed": 7}


def main() -> None:
    with flightlog.init(project="digits", config=CONFIG, tags=["demo"]) as run:
        train(run)
    print_table(flightlog.Api().run(run.path))


def train(run: flightlog.Run) -> None:
    """Train a network with one hidden layer, logging every step."""
    config = run.config
    random = np.random.default_rng(config.seed)
    images, labels = load_digits(return_X_y=True)
    images = images / 16.0
    order = random.permutation(len(images))
    training, validation = order[:1400], order[1400:]
    weights = [
        random.normal(0, 0.2, (64, config.hidden)),
        random.normal(0, 0.2, (config.hidden, 10)),
    ]

    for step in range(config.steps):
        batch = random.choice(training, config.batch_size)
        loss, accuracy, gradients = evaluate(weights, images[batch], labels[batch])
        lr = config.lr * 0.5 * (1 + np.cos(np.pi * step / config.steps))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= lr * gradient

        row = {
            "loss": loss,
            "accuracy": accuracy,
            "grad_norm": np.sqrt(sum((each**2).sum() for each in gradients)),
            "lr": lr,
        }
        if step % 25 == 0 or step == config.steps - 1:
            held_out = evaluate(weights, images[validation], labels[validation])
            row["val/loss"], row["val/accuracy"], _ = held_out
        run.log(row, step=step)


def evaluate(weights, images, labels):
    """Return the loss, the accuracy, and the gradient of the loss."""
    hidden = np.maximum(images @ weights[0], 0)
    scores = hidden @ weights[1]
    scores -= scores.max(axis=1, keepdims=True)
    chances = np.exp(scores)
    chances /= chances.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(chances[rows, labels]).mean()
    accuracy = (chances.argmax(axis=1) == labels).mean()

    errors = chances
    errors[rows, labels] -= 1
    errors /= len(labels)
    back = (errors @ weights[1].T) * (hidden > 0)
    return loss, accuracy, [images.T @ back, hidden.T @ errors]


def print_table(run) -> None:
    """Read the run back and print ten of its rows."""
    keys = ["loss", "accuracy", "grad_norm", "lr"]
    print(f"{'step':>6}" + "".join(f"{key:>12}" for key in keys))
    for row in run.history(samples=10, keys=keys, pandas=False):
        print(f"{row['_step']:>6}" + "".join(f"{row[key]:>12.4f}" for key in keys))
    best = max(row["val/accuracy"] for row in run.scan_history(keys=["val/accuracy"]))
    print(f"{run.state}; best validation accuracy {best:.3f}")
    command = Path(sys.executable).with_name("flightlog")
    print(f"The data lies in {flightlog.Api().home.root}; try: {command} ls")


if __name__ == "__main__":
    main()
