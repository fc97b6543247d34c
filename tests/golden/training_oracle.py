"""Generates training_oracle.json: losses, gradients and whole training runs, computed without this repository's code.

It uses JAX (jax.nn, automatic differentiation) and scikit-learn (metrics, data) with float64 numbers. The random
numbers are drawn with NumPy, as the documentation of the seed specifies. `python tests/golden/training_oracle.py`
writes the file, which changes only if the meaning of a seed or a loss changes.
"""

import json
from pathlib import Path

import jax
import numpy as np
from sklearn import metrics as sk
from sklearn.datasets import load_digits

jax.config.update("jax_enable_x64", True)
jnp = jax.numpy


def cross_entropy(logits, targets):
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits, axis=1), axis=1))


def cross_entropy_of_probabilities(p, targets):
    return -jnp.mean(jnp.sum(targets * jnp.log(p), axis=1))


def mean_squared_error(outputs, targets):
    return jnp.mean(jnp.square(outputs - targets))


def losses():
    rng = np.random.default_rng(20)
    outputs, labels = 3 * rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    one_hot, soft = np.eye(4)[labels], rng.dirichlet(np.ones(4), 5)
    probabilities = rng.dirichlet(np.ones(4), 5)
    column, values = rng.standard_normal((6, 1)), rng.standard_normal(6)
    cases = [
        ("CrossEntropy()", cross_entropy, outputs, labels, one_hot),
        ("CrossEntropy()", cross_entropy, outputs, one_hot, one_hot),
        ("CrossEntropy()", cross_entropy, outputs, soft, soft),
        ("CrossEntropy(from_logits=False)", cross_entropy_of_probabilities, probabilities, labels, one_hot),
        ("CrossEntropy(from_logits=False)", cross_entropy_of_probabilities, probabilities, soft, soft),
        ("MSE()", mean_squared_error, outputs, labels, one_hot),
        ("MSE()", mean_squared_error, outputs, soft, soft),
        ("MSE()", mean_squared_error, column, values, values[:, None]),
    ]
    for name, function, predictions, targets, matrix in cases:
        loss, gradient = jax.value_and_grad(function)(predictions, matrix)
        yield {
            "loss": name,
            "predictions": predictions.tolist(),
            "targets": targets.tolist(),
            "value": float(loss),
            "gradient": np.asarray(gradient).tolist(),
        }


def stream(seed, *key):
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def forward(parameters, x):
    for index, (W, b) in enumerate(parameters):
        x = x @ W.T + b
        x = jax.nn.relu(x) if index < len(parameters) - 1 else x
    return x


def class_metrics(outputs, labels):
    predicted = np.asarray(outputs).argmax(axis=1)
    options = {"average": "macro", "zero_division": 0}
    return {
        "accuracy": sk.accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, **options),
        "recall": sk.recall_score(labels, predicted, **options),
        "f1": sk.f1_score(labels, predicted, **options),
    }


def error_metrics(outputs, targets):
    return {
        "mean_absolute_error": sk.mean_absolute_error(targets, np.asarray(outputs)),
        "r2": sk.r2_score(targets, np.asarray(outputs)),
    }


def training(widths, loss, *, epochs, batch_size, lr, seed, shuffle):
    """Train on the first 600 digits and evaluate on the next 200, with initial weights drawn from the seed."""
    x, labels = load_digits(return_X_y=True)
    x = x / 16
    is_classification = loss is cross_entropy
    y = np.eye(10)[labels] if is_classification else labels[:, None].astype(np.float64)
    sets = {"train": slice(0, 600), "test": slice(600, 800)}
    parameters = []
    for index, (inputs, outputs) in enumerate(zip([64, *widths], widths, strict=False)):
        W = stream(seed, 0, index).standard_normal((outputs, inputs)) * np.sqrt(2 / inputs)
        parameters.append((W, np.zeros(outputs)))
    step = jax.jit(jax.value_and_grad(lambda weights, rows, targets: loss(forward(weights, rows), targets)))
    results = []
    for epoch in range(1, epochs + 1):
        order = stream(seed, 1, epoch).permutation(600) if shuffle else np.arange(600)
        total = 0.0
        for start in range(0, 600, batch_size):
            rows = order[start : start + batch_size]
            value, gradient = step(parameters, x[rows], y[rows])
            total += float(value) * len(rows)
            parameters = jax.tree.map(lambda weights, slope: weights - lr * slope, parameters, gradient)
        result = {"running_loss": total / 600}
        for name, rows in sets.items():
            outputs = forward(parameters, x[rows])
            found = class_metrics(outputs, labels[rows]) if is_classification else error_metrics(outputs, y[rows])
            result[name] = {"loss": float(loss(outputs, y[rows])), **found}
        results.append(result)
    flat = np.concatenate([np.ravel(each) for pair in parameters for each in pair])
    return {
        "widths": list(widths),
        "loss": "CrossEntropy()" if is_classification else "MSE()",
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "shuffle": shuffle,
        "results": results,
        "weights": {"every_50th": flat[::50].tolist(), "sum": float(flat.sum()), "norm": float(np.linalg.norm(flat))},
    }


def main():
    oracle = {
        "losses": list(losses()),
        "trainings": [
            training((16, 10), cross_entropy, epochs=3, batch_size=32, lr=0.2, seed=3, shuffle=True),
            training((12, 8, 1), mean_squared_error, epochs=2, batch_size=50, lr=0.02, seed=4, shuffle=False),
        ],
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(oracle, indent=1) + "\n")


if __name__ == "__main__":
    main()
