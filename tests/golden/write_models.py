"""Golden files of the model families: tiny checkpoints and what Hugging Face's models make of them.

    python tests/golden/write_models.py            # all cases, into tests/golden/models/
    python tests/golden/write_models.py gemma2     # one

Needs torch and transformers; the tests that read the files need neither. The live tests import this
file and draw other weights and texts with it.
"""

import argparse
import copy
import dataclasses
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

FOLDER = Path(__file__).parent / "models"

# Longer than every window and than every context that a RoPE scaling calls the original one.
LENGTH = 60
# Texts of each row; a row of several is packed, and what is left of a row is padding.
PLAIN = ((60,), (60,))
PADDED = ((31,), (13,))
PACKED = ((19, 30), (24, 3, 14))
PROMPTS = (5, 17, 11)
CANDIDATES = 6
NEW_TOKENS = 64
# Ids below are left to padding and the ends of texts: their embeddings may have no gradient.
FIRST_ID = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """One family, tiny, with every feature on that its published models have.

    Attributes:
      kind: `transformers` classes begin with this.
      fields: of the config; odd on purpose, so that no two sizes can be confused.
      gain: standard deviation of projections, times the root of their inputs.
      head_gain: the same of embedding and head.
    """

    kind: str
    fields: dict[str, Any]
    gain: float = 1.4
    head_gain: float = 1.2


def _shape(D: int, L: int, H: int, K: int, F: int, V: int, h: int = 0) -> dict[str, Any]:
    shape = {
        "hidden_size": D,
        "num_hidden_layers": L,
        "num_attention_heads": H,
        "num_key_value_heads": K,
        "intermediate_size": F,
        "vocab_size": V,
        "max_position_embeddings": 512,
    }
    return shape | ({"head_dim": h} if h else {})


def _rope(theta: float, kind: str = "default", **fields: float) -> dict[str, Any]:
    return {"rope_theta": theta, "rope_type": kind, **fields}


CASES = {
    "llama2": Case(
        "Llama",
        _shape(D=36, L=2, H=3, K=3, F=40, V=67)
        | {"rope_parameters": _rope(1e4), "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
    ),
    "llama3": Case(
        "Llama",
        _shape(D=40, L=2, H=5, K=1, F=44, V=70)
        | {"rope_parameters": _rope(5e5), "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
    ),
    "llama3_2": Case(
        "Llama",
        _shape(D=32, L=3, H=2, K=1, F=36, V=72)
        | {
            "rope_parameters": _rope(
                5e4,
                "llama3",
                factor=8.0,
                low_freq_factor=1.25,
                high_freq_factor=6.0,
                original_max_position_embeddings=32,
            ),
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
    ),
    "mistral": Case(
        "Mistral",
        _shape(D=32, L=2, H=4, K=2, F=40, V=66, h=10)
        | {"rope_parameters": _rope(1e6), "sliding_window": 12, "tie_word_embeddings": False},
    ),
    "qwen2": Case(
        "Qwen2",
        _shape(D=40, L=2, H=4, K=2, F=44, V=75)
        | {"rope_parameters": _rope(1e6), "tie_word_embeddings": True},
    ),
    "qwen2_5": Case(
        "Qwen2",
        _shape(D=36, L=2, H=6, K=3, F=44, V=65)
        | {"rope_parameters": _rope(1e5), "tie_word_embeddings": False},
    ),
    "qwen3": Case(
        "Qwen3",
        _shape(D=32, L=2, H=4, K=2, F=40, V=77, h=14)
        | {"rope_parameters": _rope(1e6), "tie_word_embeddings": True},
    ),
    "qwen3_yarn": Case(
        "Qwen3",
        _shape(D=32, L=2, H=3, K=1, F=40, V=68, h=16)
        | {
            "max_position_embeddings": 128,
            "rope_parameters": _rope(
                1e4,
                "yarn",
                factor=4.0,
                beta_fast=2.0,
                beta_slow=0.25,
                original_max_position_embeddings=32,
            ),
            "tie_word_embeddings": False,
        },
    ),
    "qwen3_moe": Case(
        "Qwen3Moe",
        _shape(D=32, L=2, H=4, K=2, F=48, V=64, h=12)
        | {"num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True}
        | {"moe_intermediate_size": 10, "tie_word_embeddings": False}
        | {"rope_parameters": _rope(1e6)},
    ),
    "qwen3_moe_raw": Case(
        "Qwen3Moe",
        _shape(D=32, L=2, H=2, K=1, F=48, V=66, h=10)
        | {"num_experts": 9, "num_experts_per_tok": 3, "norm_topk_prob": False}
        | {"moe_intermediate_size": 9, "tie_word_embeddings": True}
        | {"rope_parameters": _rope(1e4)},
    ),
    "gemma": Case(
        "Gemma",
        _shape(D=32, L=2, H=4, K=1, F=48, V=69, h=24) | {"rope_parameters": _rope(1e4)},
    ),
    # Scores and logits reach several times their caps.
    "gemma2": Case(
        "Gemma2",
        _shape(D=32, L=3, H=4, K=2, F=40, V=72, h=12)
        | {
            "rope_parameters": _rope(1e4),
            "sliding_window": 10,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 1.5,
        },
        gain=2.5,
    ),
    "gemma3": Case(
        "Gemma3Text",
        _shape(D=32, L=8, H=2, K=1, F=24, V=71, h=10)
        | {
            "rope_parameters": {
                "full_attention": _rope(1e6, "linear", factor=8.0),
                "sliding_attention": _rope(1e4),
            },
            "sliding_window": 9,
            "query_pre_attn_scalar": 6,
        },
    ),
}


def make_model(case: Case, seed: int) -> transformers.PreTrainedModel:
    """A model with drawn weights that bfloat16 holds without loss, computing in float32.

    Norm scales are not one and biases not zero: a model that ignores them gives something else.
    """
    config = getattr(transformers, f"{case.kind}Config")(**case.fields)
    config._attn_implementation = config._experts_implementation = "eager"
    model = getattr(transformers, f"{case.kind.removesuffix('Text')}ForCausalLM")(config).float()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        # What layers write outweighs the embedding: a tied model would repeat one token for ever.
        writes = any(part in name for part in ("o_proj", "down_proj", "post_"))
        if "norm" in name:
            drawn = 0.3 * noise + (0.0 if case.kind.startswith("Gemma") else 1.0) + writes
        elif name.endswith("bias"):
            drawn = 0.5 * noise
        else:
            ends = "embed_tokens" in name or "lm_head" in name
            gain = case.head_gain if ends else case.gain * (1 + writes)
            drawn = gain * noise * weight.shape[-1] ** -0.5
        weight.data = drawn.to(torch.bfloat16).float()
    return model.eval()


def make_texts(vocab_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and segment ids [rows, LENGTH] int32, as the package reads them: padded at the end."""
    rng = np.random.default_rng(seed)
    rows = PLAIN + PADDED + PACKED
    tokens = np.zeros((len(rows), LENGTH), np.int32)
    segments = np.zeros_like(tokens)
    for row, lengths in enumerate(rows):
        used = sum(lengths)
        tokens[row, :used] = rng.integers(FIRST_ID, vocab_size, used)
        segments[row, :used] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    return tokens, segments


def _split(tokens: np.ndarray, segments: np.ndarray) -> list[torch.Tensor]:
    """Every text on its own, in the order in which they lie in the rows."""
    return [
        torch.from_numpy(row[ids == i].astype(np.int64))
        for row, ids in zip(tokens, segments, strict=True)
        for i in range(1, ids.max() + 1)
    ]


def _left_padded(texts: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    longest = max(map(len, texts))
    ids = torch.zeros((len(texts), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, longest - len(text) :] = text
        mask[row, longest - len(text) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def _logits(model, texts: list[torch.Tensor]) -> list[torch.Tensor]:
    """[length, V] of each text, read together in one batch padded on the left."""
    logits = model(**_left_padded(texts), use_cache=False).logits
    return [row[len(row) - len(text) :] for row, text in zip(logits, texts, strict=True)]


def read(model, tokens: np.ndarray, segments: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of every text, each kind read as transformers reads it; leaves gradients in the model.

    The loss is the mean cross-entropy of next tokens; with experts, plus the balance loss. It is
    taken from one batch that holds all texts, padded on the left.

    Returns:
      logits: [N, V], of the tokens that are not padding.
      loss, balance_loss: numbers; the second is zero without experts.
    """
    texts = _split(tokens, segments)
    plain, padded = texts[: len(PLAIN)], texts[len(PLAIN) : len(PLAIN) + len(PADDED)]
    packed = texts[len(PLAIN) + len(PADDED) :]
    with torch.no_grad():
        logits = list(model(torch.stack(plain), use_cache=False).logits)
        logits += _logits(model, padded)
        logits += [model(text[None], use_cache=False).logits[0] for text in packed]

    batch = _left_padded(texts)
    experts = getattr(model.config, "num_experts", 0)
    routed = {"output_router_logits": True} if experts else {}
    out = model(**batch, use_cache=False, **routed)
    nll, count = torch.zeros(()), 0
    for row, text, alone in zip(out.logits, texts, logits, strict=True):
        row = row[len(row) - len(text) :]
        assert torch.allclose(row, alone, atol=5e-5), "padding on the left changes the logits"
        nll = nll + torch.nn.functional.cross_entropy(row[:-1], text[1:], reduction="sum")
        count += len(text) - 1
    loss, balance = nll / count, torch.zeros(())
    if experts:
        chosen = model.config.num_experts_per_tok
        mask = batch["attention_mask"]
        balance = load_balancing_loss_func(out.router_logits, experts, chosen, mask)
        loss = loss + balance
    model.zero_grad()
    loss.backward()
    logits = torch.cat(logits)
    assert 0.3 < logits.std() < 3, f"logits of spread {logits.std()}"
    return {
        "logits": logits.numpy(),
        "loss": np.float32(loss.item()),
        "balance_loss": np.float32(balance.item()),
    }


def generate(model, seed: int) -> dict[str, np.ndarray]:
    """Greedy decoding of prompts of unequal length, together in one batch padded on the left.

    Of several prompts of each length one is taken whose steps are never close, so that rounding
    cannot choose another token; of these, that with the most varied answer.

    Returns:
      prompts: [n, longest] int32, padded at the end; prompt_lengths: [n].
      generated: [n, NEW_TOKENS] int32.
    """
    rng = np.random.default_rng(seed)
    lengths = np.repeat(PROMPTS, CANDIDATES)
    drawn = [rng.integers(FIRST_ID, model.config.vocab_size, n) for n in lengths]
    batch = _left_padded([torch.from_numpy(prompt) for prompt in drawn])
    del batch["position_ids"]  # `generate` derives them from the mask.
    model.generation_config.eos_token_id = None
    out = model.generate(
        **batch,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits).topk(2).values
    clear = (best[..., 0] - best[..., 1]).min(dim=0).values.numpy() > 3e-4
    answers = out.sequences[:, -NEW_TOKENS:].numpy().astype(np.int32)
    varied = np.array([len(set(row.tolist())) for row in answers]) * clear
    chosen = [max(np.flatnonzero(lengths == n), key=varied.__getitem__) for n in PROMPTS]
    assert varied[chosen].min() >= 5, f"answers of {varied[chosen]} different tokens"
    prompts = np.zeros((len(PROMPTS), max(PROMPTS)), np.int32)
    for row, i in zip(prompts, chosen, strict=True):
        row[: lengths[i]] = drawn[i]
    return {
        "prompts": prompts,
        "prompt_lengths": np.array(PROMPTS, np.int32),
        "generated": answers[chosen],
    }


def write(case: Case, folder: Path, seed: int) -> None:
    """Write one case: `checkpoint/`, `gradients/` (a checkpoint too) and `golden.npz`.

    Gradients are kept as weights would be: whatever reads a checkpoint brings both into one form.
    """
    # Threads would wait for each other at each of these small products.
    torch.set_num_threads(1)
    model = make_model(case, seed)
    tokens, segments = make_texts(model.config.vocab_size, seed + 1)
    golden = {"tokens": tokens, "segments": segments} | read(model, tokens, segments)
    gradients = copy.deepcopy(model)
    for gradient, weight in zip(gradients.parameters(), model.parameters(), strict=True):
        gradient.data = weight.grad
    golden |= generate(model, seed + 2)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    shutil.rmtree(folder, ignore_errors=True)
    # Small enough that some checkpoints come in several files.
    gradients.save_pretrained(folder / "gradients", max_shard_size="250KB")
    model.to(torch.bfloat16).save_pretrained(folder / "checkpoint", max_shard_size="60KB")
    for unused in folder.glob("*/generation_config.json"):
        unused.unlink()
    np.savez_compressed(folder / "golden.npz", versions=json.dumps(versions), **golden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"some of {', '.join(CASES)}; all if none")
    for name in parser.parse_args().cases or CASES:
        write(CASES[name], FOLDER / name, zlib.crc32(name.encode()))
        size = sum(file.stat().st_size for file in (FOLDER / name).rglob("*") if file.is_file())
        print(f"{name}: {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
