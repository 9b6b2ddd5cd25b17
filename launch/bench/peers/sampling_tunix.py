"""Tunix's sampler on the requests of `bench_sampling.py`; runs in the peer's environment.

    TUNIX/bin/python sampling_tunix.py FOLDER

Static batches, padded on the left to their longest prompt, not to a power of two. A batch ends with
its longest answer, as if the sampler knew which tokens after an answer's end nobody wants; every
other answer goes on until then. The cache, all of which every step reads, has room for the longest
answer that is allowed; where lengths are known beforehand, for the longest that there is.
"""

import functools
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
from commands import serve
from tunix.generate.sampler import CacheConfig, Sampler
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3 import params


class Numbers:
    """The tokenizer that the sampler asks for: prompts are token ids already, answers stay so."""

    def __init__(self, pad_id: int):
        self._pad_id = pad_id

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return ""

    def bos_id(self) -> int:
        return 0  # Means that there is none.

    def eos_id(self) -> int:
        return -1

    def pad_id(self) -> int:
        return self._pad_id


def read_model(folder: Path) -> qwen3.Qwen3:
    fields = json.loads((folder / "config.json").read_text())
    config = qwen3.ModelConfig(
        num_layers=fields["num_hidden_layers"],
        vocab_size=fields["vocab_size"],
        embed_dim=fields["hidden_size"],
        hidden_dim=fields["intermediate_size"],
        num_heads=fields["num_attention_heads"],
        head_dim=fields["head_dim"],
        num_kv_heads=fields["num_key_value_heads"],
        rope_theta=1_000_000,  # What it computes with, whatever it is told.
        norm_eps=fields["rms_norm_eps"],
        use_tied_embedding=fields["tie_word_embeddings"],
        dtype=jnp.float32,
        param_dtype=jnp.float32,
    )
    return params.create_model_from_safe_tensors(str(folder), config, dtype=jnp.float32)


def main(folder: Path) -> None:
    work = json.loads((folder / "work.json").read_text())
    model = read_model(folder / "model")

    @functools.cache
    def sampler(context: int) -> Sampler:
        config = model.config
        sizes = CacheConfig(context, config.num_layers, config.num_kv_heads, config.head_dim)
        return Sampler(model, Numbers(work["pad_id"]), sizes)

    def generate(batch: dict, **options) -> tuple[list[list[int]], list[list[float]] | None]:
        # Without top_p the sampler is greedy, whatever the temperature.
        output = sampler(batch["context"])(
            [" ".join(map(str, prompt)) for prompt in batch["prompts"]],
            max_generation_steps=max(batch["lengths"]),
            max_prompt_length=max(map(len, batch["prompts"])),
            eos_tokens=[-1],
            **options,
        )
        return [answer.tolist() for answer in output.tokens], output.logprobs

    def run(name: str) -> dict[str, float]:
        started = time.perf_counter()
        tokens = row_steps = 0
        for batch in work["batches"][name]:
            answers, _ = generate(batch, temperature=1.0, top_p=1.0, seed=batch["seed"])
            wanted = zip(answers, batch["lengths"], strict=True)
            tokens += sum(len(answer[:length]) for answer, length in wanted)
            row_steps += sum(map(len, answers))
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": tokens, "occupancy": tokens / row_steps}

    def about() -> dict[str, str]:
        names = {"tunix": "google-tunix", "jax": "jax", "flax": "flax"}
        found = {name: importlib.metadata.version(package) for name, package in names.items()}
        return {"python": sys.version.split()[0], **found}

    def greedy() -> tuple:
        return generate(work["check"], return_logprobs=True)

    serve({"about": about, "greedy": greedy, "run": run})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
