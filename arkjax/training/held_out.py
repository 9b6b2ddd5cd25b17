"""Held-out accuracy during training: which weights were the best, and when to stop."""

from collections.abc import Callable
from pathlib import Path

from arkjax.models.transformer import Transformer
from arkjax.training.checkpoints import rank
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
        self._looks = _read(self._path)

    def look(self, step: int, held_out: HeldOut, model: Transformer) -> float:
        """Measure the model after `step` steps and write it down."""
        accuracy = float(held_out(model))
        self._log.append(step, accuracy=accuracy)
        self._looks.append((step, accuracy))
        return accuracy

    @property
    def best(self) -> int:
        """Step of the best look; of equal ones the earliest that was trained at all."""
        return _best(self._looks)[0]

    @property
    def found(self) -> str:
        """What the looks came to, for people."""
        step, accuracy = _best(self._looks)
        if step == 0:
            return (
                f"no look was as good as the {accuracy:.1%} that it began with: it is left as it "
                "was"
            )
        return f"step {step} is kept, with a held-out accuracy of {accuracy:.1%}"

    @property
    def exhausted(self) -> bool:
        """Whether as many looks as patience allows have brought no new best."""
        since = sum(step > self.best for step, _ in self._looks)
        return bool(self._patience) and since >= self._patience


def best_look(path: Path) -> tuple[int, float] | None:
    """Step and accuracy of the best look that a finished training wrote; None if it had none."""
    looks = _read(path)
    return _best(looks) if looks else None


def _read(path: Path) -> list[tuple[int, float]]:
    return [(int(line["step"]), line["accuracy"]) for line in read_metrics(path)]


def _best(looks: list[tuple[int, float]]) -> tuple[int, float]:
    return max(looks, key=lambda look: rank(*look))
