"""Training metrics as JSON lines, exact across restarts."""

import json
from pathlib import Path

from arkjax.errors import DataError
from arkjax.storage import storage_errors, write_atomic


class MetricsLog:
    """Appends one JSON object per logged step.

    A run that is killed and goes on from a checkpoint logs the steps after it again; `rewind` first
    drops what was logged of them, so that the file is the same as that of an undisturbed run.
    """

    def __init__(self, path: Path):
        """Open, or make, the log."""
        self._path = path

    def rewind(self, step: int) -> None:
        """Forget every line beyond `step`, and a last line that was cut off."""
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        write_atomic(self._path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, step: int, **values: float) -> None:
        """Log the values of one step."""
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """All lines of a log; none if it does not exist. A cut-off last line is left out.

    Raises:
      DataError: if another line than the last is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    parsed = []
    for number, line in enumerate(lines, 1):
        try:
            parsed.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(f"{path}, line {number} is damaged: {error}") from error
    return parsed
