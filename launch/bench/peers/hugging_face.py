"""A model under Hugging Face `generate`, for the benches' peers; runs in the peer's environment."""

import os
import sys
from pathlib import Path

import torch
import transformers


class Model:
    """A causal language model in fp32 on all cores of the CPU."""

    def __init__(self, folder: Path, pad_id: int):
        """Read the model of a folder.

        Args:
          folder: a Hugging Face checkpoint.
          pad_id: what prompts are padded with, on the left.
        """
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        read = transformers.AutoModelForCausalLM.from_pretrained
        self._model = read(folder, dtype=torch.float32).eval()
        self._pad_id = pad_id

    @torch.inference_mode()
    def generate(
        self, prompts: list[list[int]], length: int, **options
    ) -> tuple[list[list[int]], tuple[torch.Tensor, ...] | None]:
        """Continue all prompts as one batch by `length` tokens, whatever they are.

        Returns:
          The answers, and the logits of each step if `options` ask for them.
        """
        width = max(map(len, prompts))
        padding = [width - len(prompt) for prompt in prompts]
        rows = zip(padding, prompts, strict=True)
        output = self._model.generate(
            input_ids=torch.tensor([[self._pad_id] * pad + prompt for pad, prompt in rows]),
            attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
            max_new_tokens=length,
            eos_token_id=None,
            pad_token_id=self._pad_id,
            use_cache=True,
            return_dict_in_generate=True,
            **options,
        )
        return output.sequences[:, width:].tolist(), output.logits

    def sample(self, prompts: list[list[int]], length: int, seed: int) -> list[list[int]]:
        """Answers drawn from the model's own distribution."""
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        return self.generate(prompts, length, **drawn)[0]

    def greedy(self, prompts: list[list[int]], length: int) -> list[list]:
        """The most probable answers, and the log-probabilities of their tokens."""
        answers, logits = self.generate(prompts, length, do_sample=False, output_logits=True)
        logprobs = torch.stack(logits, dim=1).log_softmax(dim=-1)
        drawn = logprobs.gather(2, torch.tensor(answers)[:, :, None])[:, :, 0]
        return [answers, drawn.tolist()]


def about() -> dict[str, str]:
    """What is measured here."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"python": sys.version.split()[0], **versions}
