"""Held-out accuracy during training: which weights were the best, and when to stop."""

from collections.abc import Callable
from pathlib import Path

from arkjax.models.transformer import Transformer
from arkjax.training.metrics import MetricsLog, read_metrics

# The model as it is now -> its accuracy on held-out problems, in [0, 1].
HeldOut = Callable[[Transformer], float]


class HeldOutLog:
    """The looks at held-out problems of one training, as JSON lines.

    Accuracy decides, not the loss: a student that becomes surer of its teacher's words may answer
    worse.
    """

    def __init__(self, path: Path, patience: int):
        """Open, or make, the log.

        Args:
          path: of the file.
          patience: looks without a new best before `exhausted`; 0: never.
        """
        self._path, self._patience = path, patience
        self._log = MetricsLog(path)
        self._looks: list[tuple[int, float]] = []

    def rewind(self, step: int) -> None:
        """Forget looks beyond `step`; all of them with -1."""
        self._log.rewind(step)
        self._looks = [(int(line["step"]), line["accuracy"]) for line in read_metrics(self._path)]

    def look(self, step: int, held_out: HeldOut, model: Transformer) -> float:
        """Measure the model after `step` steps and write it down."""
        accuracy = float(held_out(model))
        self._log.append(step, accuracy=accuracy)
        self._looks.append((step, accuracy))
        return accuracy

    @property
    def best(self) -> int:
        """Step of the best look, the earliest of equal ones."""
        return max(self._looks, key=lambda look: (look[1], -look[0]))[0]

    @property
    def exhausted(self) -> bool:
        """Whether as many looks as patience allows have brought no new best."""
        since = sum(step > self.best for step, _ in self._looks)
        return bool(self._patience) and since >= self._patience
