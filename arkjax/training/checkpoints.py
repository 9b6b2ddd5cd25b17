"""Training state on disk: saved by Orbax, whole or not at all, restored onto any mesh."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from arkjax.errors import DataError
from arkjax.storage import storage_errors

_SCORE, _STEP = "score", "step"


class Checkpoints:
    """The checkpoints of one training run; the newest two are kept, and the one of the best score.

    A state is a pytree of arrays. What else a run needs, the position in its data, is its step.
    """

    def __init__(self, directory: Path):
        """Open the directory, or make it; what a killed writer left half done is none."""
        self._directory = directory
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                directory.absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=AnyPreservationPolicy(
                        [LatestN(2), BestN(get_metric_fn=_rank, n=1)]
                    ),
                    enable_async_checkpointing=True,
                    cleanup_tmp_directories=True,
                ),
            )

    def save(self, step: int, state: object, score: float | None = None) -> None:
        """Write the state after `step` steps; returns once the arrays have been copied.

        Args:
          step: how many.
          state: what to write.
          score: what makes it better than others, see `rank`.

        Raises:
          StorageError: if an earlier or this state cannot be written.
        """
        metrics = None if score is None else {_SCORE: score, _STEP: step}
        with storage_errors(self._directory):
            self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def restore_latest(self, like: object) -> tuple[int, object] | None:
        """The newest step and state, placed as the arrays of `like` are; None if there is none.

        Raises:
          DataError: if the newest checkpoint is damaged.
        """
        step = self._manager.latest_step()
        return None if step is None else self.restore(step, like)

    def restore(self, step: int, like: object) -> tuple[int, object]:
        """The state after `step` steps, placed as the arrays of `like` are.

        Raises:
          DataError: if there is no such checkpoint, or it is damaged.
        """
        with storage_errors(self._directory):
            self._manager.wait_until_finished()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file.
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(
                f"checkpoint {self._directory / str(step)} cannot be read: {lines[0]}. Delete that "
                "directory to go on from the one before it"
            ) from error
        return step, state

    def close(self) -> None:
        """Wait until everything is written."""
        with storage_errors(self._directory):
            self._manager.wait_until_finished()
            self._manager.close()


def rank(step: int, score: float) -> tuple[float, bool, int]:
    """What orders states: the score; of equal ones the earliest that was trained at all is best."""
    return score, step > 0, -step


def _rank(metrics: dict[str, float]) -> tuple[float, bool, int]:
    return rank(int(metrics[_STEP]), metrics[_SCORE])
