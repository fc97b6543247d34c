"""The contenders on a CPU or a GPU: gradwire, the textbook loop in NumPy, PyTorch, JAX and scikit-learn."""

import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from gradwire.cli.bench.task import LEARNING_RATE, Contender, Device, Task
from gradwire_engine.backend import Array, thread_count
from gradwire_engine.examples import Examples
from gradwire_engine.losses import CrossEntropy
from gradwire_engine.plans import Plan, Problem, ReferencePlan, choose_plan


class _EnginePlan:
    """A plan of the engine."""

    def __init__(self, task: Task, plan: Plan) -> None:
        self._task, self._plan = task, plan
        self._placed = plan.place(Examples.of(task.inputs, task.labels, classification=True))

    def train_epoch(self) -> None:
        self._plan.train(self._placed, self._task.order, self._task.batch_size, LEARNING_RATE, 0.0)

    def evaluate(self) -> tuple[float, float]:
        metrics = self._plan.evaluate(self._placed)
        assert metrics.accuracy is not None
        return metrics.loss, metrics.accuracy

    def first_weights(self) -> Array:
        return self._task.network.layers[0].weights(self._plan.weights())[0].copy()


def _problem(task: Task) -> Problem:
    return Problem(task.network, CrossEntropy(), task.weights.dtype)


def _gradwire(task: Task, device: Device) -> Contender:
    chosen = choose_plan(_problem(task), task.weights, device)
    if chosen.warning:
        print(chosen.warning, file=sys.stderr)
    return _EnginePlan(task, chosen.plan)


def _chapter(task: Task) -> Contender:
    return _EnginePlan(task, ReferencePlan(_problem(task), task.weights))


class _Torch:
    def __init__(self, task: Task, device: Device, *, compiled: bool = False) -> None:
        import torch  # noqa: PLC0415

        torch.set_num_threads(thread_count())
        self._torch, self._task = torch, task
        torch_device = "cuda" if device == "gpu" else "cpu"
        modules: list[Any] = []
        for W, b in task.parameters():
            linear = torch.nn.Linear(W.shape[1], W.shape[0])
            linear.weight.data, linear.bias.data = torch.from_numpy(W), torch.from_numpy(b)
            modules += [linear, torch.nn.ReLU()]
        self._net = torch.nn.Sequential(*modules[:-1]).to(torch_device)
        self._loss = torch.nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(self._net.parameters(), lr=LEARNING_RATE, fused=True)
        self._inputs, self._labels, self._order = (
            torch.from_numpy(array).to(torch_device) for array in (task.inputs, task.labels, task.order)
        )
        # GPU work runs asynchronously.
        self._wait = torch.cuda.synchronize if device == "gpu" else lambda: None

        def forward_and_loss(x: Any, y: Any) -> Any:
            return self._loss(self._net(x), y)

        torch._dynamo.reset()  # Compile each task separately for its shapes.
        mode = "reduce-overhead" if device == "gpu" else None
        self._step_loss = torch.compile(forward_and_loss, dynamic=False, mode=mode) if compiled else forward_and_loss

    def train_epoch(self) -> None:
        for batch in self._order.split(self._task.batch_size):
            self._step(batch)
        self._wait()

    def _step(self, batch: Any) -> None:
        self._optimizer.zero_grad()
        self._step_loss(self._inputs[batch], self._labels[batch]).backward()
        self._optimizer.step()

    def evaluate(self) -> tuple[float, float]:
        with self._torch.no_grad():
            logits = self._net(self._inputs)
            accuracy = (logits.argmax(1) == self._labels).float().mean()
            return float(self._loss(logits, self._labels)), float(accuracy)

    def first_weights(self) -> Array:
        weights: Array = self._net[0].weight.detach().cpu().numpy().copy()
        return weights


class _TorchGraph(_Torch):
    """Captures a whole step, including gathering its rows, as a CUDA graph."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, "gpu")
        torch = self._torch
        self._batch = self._order[: task.batch_size].clone()
        first = [parameter.detach().clone() for parameter in self._net.parameters()]
        warm_up = torch.cuda.Stream()
        warm_up.wait_stream(torch.cuda.current_stream())
        # PyTorch requires some warm-up steps before the capture. The weights are restored afterward.
        with torch.cuda.stream(warm_up):
            for _ in range(3):
                self._step(self._batch)
        torch.cuda.current_stream().wait_stream(warm_up)
        self._graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph):
            self._step(self._batch)
        with torch.no_grad():
            for parameter, value in zip(self._net.parameters(), first, strict=True):
                parameter.copy_(value)

    def train_epoch(self) -> None:
        for batch in self._order.split(self._task.batch_size):
            self._batch.copy_(batch)
            self._graph.replay()
        self._wait()


class _Jax:
    def __init__(self, task: Task) -> None:
        import jax  # noqa: PLC0415
        import jax.numpy as jnp  # noqa: PLC0415

        # Without this, a GPU would round the factors to TF32, which no other contender does.
        jax.config.update("jax_default_matmul_precision", "highest")
        inputs, labels = jnp.asarray(task.inputs), jnp.asarray(task.labels)
        self._order = jnp.asarray(task.order.reshape(-1, task.batch_size))
        self._parameters: Any = [(jnp.asarray(W), jnp.asarray(b)) for W, b in task.parameters()]

        def logits_of(parameters: Any, x: Any) -> Any:
            for index, (W, b) in enumerate(parameters):
                x = x @ W.T + b
                if index < len(parameters) - 1:
                    x = jax.nn.relu(x)
            return x

        def loss_of(parameters: Any, x: Any, y: Any) -> Any:
            log_p = jax.nn.log_softmax(logits_of(parameters, x))
            return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], 1))

        def step(parameters: Any, batch: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(parameters, inputs[batch], labels[batch])
            return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, gradients), loss

        def evaluate(parameters: Any) -> Any:
            logits = logits_of(parameters, inputs)
            log_p = jax.nn.log_softmax(logits)
            loss = -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], 1))
            return loss, jnp.mean(jnp.argmax(logits, axis=1) == labels)

        self._epoch = jax.jit(lambda parameters, order: jax.lax.scan(step, parameters, order))
        self._evaluate = jax.jit(evaluate)

    def train_epoch(self) -> None:
        self._parameters, losses = self._epoch(self._parameters, self._order)
        losses.block_until_ready()

    def evaluate(self) -> tuple[float, float]:
        loss, accuracy = self._evaluate(self._parameters)
        return float(loss), float(accuracy)

    def first_weights(self) -> Array:
        return np.array(self._parameters[0][0])


class _ScikitLearn:
    def __init__(self, task: Task) -> None:
        from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

        self._task = task
        self._classes = np.arange(task.network.out_features)
        self._net = MLPClassifier(
            [layer.out_features for layer in task.network.layers[:-1]],
            solver="sgd", alpha=0, momentum=0, nesterovs_momentum=False, shuffle=False,
            learning_rate_init=LEARNING_RATE, batch_size=task.batch_size,
        )  # fmt: skip
        # The first call draws random weights. After that, the weights can be replaced.
        first = task.order[: max(task.batch_size, len(self._classes))]
        self._net.partial_fit(task.inputs[first], task.labels[first], classes=self._classes)
        for index, (W, b) in enumerate(task.parameters()):
            self._net.coefs_[index][...], self._net.intercepts_[index][...] = W.T, b

    def train_epoch(self) -> None:
        self._net.partial_fit(self._task.inputs[self._task.order], self._task.labels[self._task.order])

    def evaluate(self) -> tuple[float, float]:
        p = self._net.predict_proba(self._task.inputs)
        picked = p[np.arange(len(p)), self._task.labels]
        return float(-np.mean(np.log(picked))), float(np.mean(p.argmax(axis=1) == self._task.labels))

    def first_weights(self) -> Array:
        weights: Array = self._net.coefs_[0].T.copy()
        return weights


CONTENDERS: dict[Device, dict[str, Callable[[Task], Contender]]] = {
    "cpu": {
        "gradwire": lambda task: _gradwire(task, "cpu"),
        "chapter (NumPy)": _chapter,
        "PyTorch eager": lambda task: _Torch(task, "cpu"),
        "torch.compile": lambda task: _Torch(task, "cpu", compiled=True),
        "JAX jit + scan": _Jax,
        "scikit-learn": _ScikitLearn,
    },
    "gpu": {
        "gradwire": lambda task: _gradwire(task, "gpu"),
        "PyTorch eager": lambda task: _Torch(task, "gpu"),
        "PyTorch CUDA graph": _TorchGraph,
        "torch.compile": lambda task: _Torch(task, "gpu", compiled=True),
        "JAX jit + scan": _Jax,
    },
}
_MODULES = {
    "PyTorch eager": "torch",
    "PyTorch CUDA graph": "torch",
    "torch.compile": "torch",
    "JAX jit + scan": "jax",
    "scikit-learn": "sklearn",
}


def missing(device: Device) -> dict[str, str]:
    """Return the contenders that cannot run here, and the reasons."""
    needs = {name: _MODULES[name] for name in CONTENDERS[device] if name in _MODULES}
    found = {name: f"{module} is not installed" for name, module in needs.items() if find_spec(module) is None}
    if device == "gpu":
        without_gpu = {module for module in set(needs.values()) if find_spec(module) and not _sees_gpu(module)}
        found |= {name: f"{module} finds no GPU" for name, module in needs.items() if module in without_gpu}
    if "torch.compile" not in found and shutil.which("g++") is None:
        found["torch.compile"] = "a C++ compiler (g++) is missing"
    return found


def _sees_gpu(module: str) -> bool:
    if module == "torch":
        import torch  # noqa: PLC0415

        return bool(torch.cuda.is_available())
    import jax  # noqa: PLC0415

    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False
