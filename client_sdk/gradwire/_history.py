"""What a fit came to: its epochs, and their curve as a picture."""

from dataclasses import dataclass, field
from pathlib import Path

from gradwire._info import Plan
from gradwire_engine.training import Epoch


@dataclass
class History:
    """The epochs of a job, first to last. `job` is its name, "" where it ran in this process."""

    job: str = ""
    plan: Plan | None = None
    epochs: list[Epoch] = field(default_factory=list)

    def plot(self, path: str | Path) -> Path:
        """Write loss, and accuracy or R2, over the epochs as a .png, .svg or .pdf picture. Needs matplotlib."""
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise ImportError("history.plot needs matplotlib: pip install 'gradwire[plot]'") from error
        evaluated = [epoch for epoch in self.epochs if epoch.train is not None]
        if not evaluated:
            raise ValueError("there is no evaluated epoch to plot")
        names = [
            name
            for name in ("loss", "accuracy", "r2")
            if all(getattr(epoch.train, name) is not None for epoch in evaluated)
        ]
        figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            for which, style in (("train", "-"), ("test", "--")):
                points = [
                    (epoch.epoch, getattr(getattr(epoch, which), name)) for epoch in evaluated if getattr(epoch, which)
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, label=which)
            axes.set_xlabel("epoch")
            axes.set_title(name)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path, dpi=150)
        return Path(path)
