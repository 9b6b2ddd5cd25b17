"""Draw the fixed evaluation sets again: `python data/search_world/make_problem_sets.py [FOLDER]`.

Writes validation.jsonl, test.jsonl and ood.jsonl into FOLDER (default: beside this script). World
and seed are in `arkjax/tasks/search_sets.py`, so the files come out the same on any machine.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from arkjax.tasks.search_sets import SEARCH_SETS  # noqa: E402

if __name__ == "__main__":
    SEARCH_SETS.save(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
