"""Hugging Face `generate` on the requests of `bench_sampling.py`; runs in the peer's environment.

    HF/bin/python sampling_hf.py FOLDER

Static batches, padded on the left. A batch ends with its longest answer, as if `generate` knew
which tokens after an answer's end nobody wants; every other answer goes on until then.
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

    def run(name: str) -> dict[str, float]:
        started = time.perf_counter()
        tokens = row_steps = 0
        for batch in work["batches"][name]:
            answers = model.sample(batch["prompts"], max(batch["lengths"]), batch["seed"])
            wanted = zip(answers, batch["lengths"], strict=True)
            tokens += sum(len(answer[:length]) for answer, length in wanted)
            row_steps += sum(map(len, answers))
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": tokens, "occupancy": tokens / row_steps}

    def greedy() -> list[list]:
        return model.greedy(work["check"]["prompts"], max(work["check"]["lengths"]))

    serve({"about": about, "greedy": greedy, "run": run})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
