"""AgentArk's debate under Hugging Face `generate`, for `bench_teams.py`; in the peer's environment.

    HF/bin/python teams_hf.py FOLDER

As the published code plays it: one problem after the other, each agent with its own growing
conversation, which begins with the question. In the later rounds it is handed the others' latest
answers and the question once more. `sequential` makes one call after the other, `batched` the calls
of a round as one batch.
"""

import json
import sys
import time
from pathlib import Path

from commands import serve
from hugging_face import Model, about


def main(folder: Path) -> None:
    work = json.loads((folder / "work.json").read_text())
    model = Model(folder / "model", work["pad_id"])
    agents, rounds, length = work["agents"], work["rounds"], work["answer"]
    words = work["words"]

    def debate(question: list[int], seed: int, batched: bool) -> int:
        """Play a debate; returns how many prompt tokens were read."""
        talks = [[*question] for _ in range(agents)]
        latest: list[list[int]] = []
        read = 0
        for number in range(rounds):
            if number:
                for i, talk in enumerate(talks):
                    others = [said for j, said in enumerate(latest) if j != i]
                    talk += words["others"]
                    for said in others:
                        talk += [*words["one"], *said]
                    talk += [*words["advice"], *question]
            step = seed + 1000 * number
            if batched:
                latest = model.sample(talks, length, step)
            else:
                latest = [model.sample([talk], length, step + i)[0] for i, talk in enumerate(talks)]
            for talk, said in zip(talks, latest, strict=True):
                read += len(talk)
                talk += said
        return read

    def run(way: str, first: int, count: int) -> dict[str, float]:
        started, read = time.perf_counter(), 0
        for i in range(first, first + count):
            read += debate(work["questions"][i], i, way == "batched")
        seconds = time.perf_counter() - started
        return {"seconds": seconds / count, "prompt_tokens": read / count}

    def greedy() -> list[list]:
        return model.greedy(work["check"], 8)

    serve({"about": about, "greedy": greedy, "run": run})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
