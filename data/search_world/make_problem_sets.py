"""Draw the fixed evaluation sets again: `python data/search_world/make_problem_sets.py [FOLDER]`.

Writes validation.jsonl, test.jsonl and ood.jsonl into FOLDER (default: beside this script). World,
sizes and seed are in `arkjax/tasks/search_sets.py`, so the files come out the same on any machine.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from arkjax.tasks import search_sets  # noqa: E402
from arkjax.tasks.embedded_world import save_problems  # noqa: E402


def main(folder: Path) -> None:
    """Write one file of problems a split into `folder`."""
    for split, problems in search_sets.draw_evaluation_sets(
        search_sets.SHIPPED_SEARCH_WORLD
    ).items():
        save_problems(folder / f"{split}.jsonl", problems)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
