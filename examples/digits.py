"""Trains a small network on the UCI digits and shows every epoch. To run this example, use `make demo`.

It uses the server at GRADWIRE_ADDRESS. If this variable is not set, it starts a server.
"""

import contextlib
import os
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gradwire as gw
from gradwire import SGD, CrossEntropy, Linear, Module, ReLU

OUTPUT = Path("demo-output")


class DigitsModel(Module):
    """A classifier that maps 64 pixels to 10 digits."""

    def __init__(self):
        super().__init__()
        self.fc1 = Linear(64, 64)
        self.relu1 = ReLU()
        self.fc2 = Linear(64, 32)
        self.relu2 = ReLU()
        self.fc3 = Linear(32, 10)

    def forward(self, x):
        x = self.relu1(self.fc1(x))
        x = self.relu2(self.fc2(x))
        return self.fc3(x)


def main():
    """Train on a server, and write a plot and a model file."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.2, random_state=0, stratify=y)
    gw.seed(0)
    model = DigitsModel()

    with contextlib.ExitStack() as stack:
        address = os.environ.get("GRADWIRE_ADDRESS")
        if not address:
            print("Starting a gradwire server (gRPC, Ray, SQLite, a folder) ...", flush=True)
            address = stack.enter_context(gw.LocalServer()).address
        print(f"The server is at {address}. Sending it the model and {len(X_train)} digits.\n", flush=True)
        history = gw.fit(
            model,
            (X_train, y_train),
            test=(X_test, y_test),
            loss=CrossEntropy(),
            optimizer=SGD(model, lr=0.1),
            epochs=20,
            batch_size=16,
            at=address,
            progress=True,
        )

    OUTPUT.mkdir(exist_ok=True)
    curve = OUTPUT / "digits.png"
    history.plot(curve)
    file = model.save(OUTPUT / "digits.safetensors")
    accuracy = history[-1].test.accuracy
    print(f"""
Test accuracy {accuracy:.4f}, trained by a Ray worker ({history.plan.device}, plan {history.plan.name}).
The curve is in {curve}, the model in {file}.

To do the same with a server that you started with `gradwire serve`:

    model = DigitsModel()
    history = gw.fit(model, (X_train, y_train), test=(X_test, y_test), loss=CrossEntropy(),
                     optimizer=SGD(model, lr=0.1), epochs=20, batch_size=16, at="localhost:50051")
    print(history[-1].test.accuracy)
""")
    if accuracy < 0.95:
        raise SystemExit(f"expected a test accuracy of 0.95 or more, got {accuracy:.4f}")


if __name__ == "__main__":
    main()
