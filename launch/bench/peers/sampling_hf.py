"""Hugging Face `generate` on the requests of `bench_sampling.py`; runs in the peer's environment.

    HF/bin/python sampling_hf.py FOLDER

Static batches, padded on the left. A batch ends with its longest answer, as if `generate` knew
which tokens after an answer's end nobody wants; every other answer goes on until then.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
import transformers
from commands import serve


def main(folder: Path) -> None:
    work = json.loads((folder / "work.json").read_text())
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    read = transformers.AutoModelForCausalLM.from_pretrained
    model = read(folder / "model", dtype=torch.float32).eval()

    @torch.inference_mode()
    def generate(batch: dict, **options) -> tuple[list[list[int]], tuple[torch.Tensor, ...] | None]:
        width = max(map(len, batch["prompts"]))
        padding = [width - len(prompt) for prompt in batch["prompts"]]
        rows = zip(padding, batch["prompts"], strict=True)
        output = model.generate(
            input_ids=torch.tensor([[work["pad_id"]] * pad + prompt for pad, prompt in rows]),
            attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
            max_new_tokens=max(batch["lengths"]),
            eos_token_id=None,
            pad_token_id=work["pad_id"],
            use_cache=True,
            return_dict_in_generate=True,
            **options,
        )
        return output.sequences[:, width:].tolist(), output.logits

    def run(name: str) -> dict[str, float]:
        started = time.perf_counter()
        tokens = row_steps = 0
        for batch in work["batches"][name]:
            torch.manual_seed(batch["seed"])
            answers, _ = generate(batch, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
            wanted = zip(answers, batch["lengths"], strict=True)
            tokens += sum(len(answer[:length]) for answer, length in wanted)
            row_steps += sum(map(len, answers))
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": tokens, "occupancy": tokens / row_steps}

    def about() -> dict[str, str]:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        return {"python": sys.version.split()[0], **versions}

    def greedy() -> list[list]:
        answers, logits = generate(work["check"], do_sample=False, output_logits=True)
        logprobs = torch.stack(logits, dim=1).log_softmax(dim=-1)
        drawn = logprobs.gather(2, torch.tensor(answers)[:, :, None])[:, :, 0]
        return [answers, drawn.tolist()]

    serve({"about": about, "greedy": greedy, "run": run})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
