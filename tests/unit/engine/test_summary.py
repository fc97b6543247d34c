"""model.summary(): layers, output shapes, parameters and bytes."""

import numpy as np

from gradwire_engine import Linear, Module, Parameter, ReLU, Sequential
from gradwire_engine.summary import summarize


class Scale(Module):
    """A layer that jobs cannot train."""

    def __init__(self):
        super().__init__()
        self.factor = Parameter(np.ones(3))

    def forward(self, x):
        return x * self.factor.data


def printed(model, capsys):
    model.summary()
    return capsys.readouterr().out.splitlines()


def test_a_summary_has_a_line_for_each_layer_and_a_total(capsys):
    lines = printed(Sequential(fc1=Linear(64, 32), relu=ReLU(), fc2=Linear(32, 10)), capsys)
    assert lines == [
        "Sequential",
        "---------------------------------------------",
        "layer         output shape  parameters  bytes",
        "---------------------------------------------",
        "fc1 (Linear)  (rows, 32)         2,080  8,320",
        "relu (ReLU)   (rows, 32)             0      0",
        "fc2 (Linear)  (rows, 10)           330  1,320",
        "---------------------------------------------",
        "total                            2,410  9,640",
    ]


def test_deferred_layers_are_shown_as_such(capsys):
    lines = "\n".join(printed(Sequential(Linear(32), ReLU(), Linear(10)), capsys))
    assert "0 (Linear, deferred)  (rows, 32)             ?          ?" in lines
    assert "2 (Linear, deferred)  (rows, 10)           330      1,320" in lines
    assert "330 + ?  1,320 + ?" in lines
    assert "A deferred layer gets its weights from its first input" in lines


def test_the_bytes_are_those_of_the_dtype(capsys):
    assert "40" in printed(Sequential(Linear(4, 1, dtype=np.float64)), capsys)[-1]


def test_a_model_that_cannot_be_traced_is_summarized_by_its_attributes(capsys):
    class Custom(Module):
        def __init__(self):
            super().__init__()
            self.fc = Linear(4, 3)
            self.scale = Scale()

        def forward(self, x):
            return self.scale(self.fc(x)) + 1

    lines = "\n".join(printed(Custom(), capsys))
    assert "fc (Linear)    (rows, 3)" in lines
    assert "scale (Scale)  ?" in lines
    assert lines.splitlines()[-1].split()[:2] == ["total", "18"]
    assert "total" in "\n".join(printed(Module(), capsys))


def test_modules_with_parameters_and_modules_without_children_are_layers():
    class Gate(Scale):
        def __init__(self):
            super().__init__()
            self.inner = Sequential(fc=Linear(3, 3), relu=ReLU())

    class Custom(Module):
        def __init__(self):
            super().__init__()
            self.gate = Gate()
            self.again = self.gate

        def forward(self, x):
            return self.gate(x) + 1

    rows = summarize(Custom())
    assert [(row.name, row.kind, row.parameters, row.size) for row in rows] == [
        ("gate", "Gate", 3, 24),
        ("gate.inner.fc", "Linear", 12, 48),
        ("gate.inner.relu", "ReLU", 0, 0),
    ]


def test_a_model_with_two_inputs_is_summarized(capsys):
    class Masked(Module):
        def __init__(self):
            super().__init__()
            self.fc = Linear(4, 3)

        def forward(self, x, mask):
            return self.fc(x) * mask

    assert printed(Masked(), capsys)[-1].split() == ["total", "15", "60"]


def test_html_shows_hostile_names_as_text():
    html = Sequential(**{"<script>": Linear(2, 1)})._repr_html_()
    assert "&lt;script&gt; (Linear)" in html
    assert "<script>" not in html
