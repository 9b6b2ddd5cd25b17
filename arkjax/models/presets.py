"""The published sizes of the supported families, as `ModelConfig`s.

The numbers are those of the `config.json` that each model was released with. Dtypes are bfloat16,
as released; `dataclasses.replace` changes any field:

    config = dataclasses.replace(presets.qwen3_8b(), remat=True)
"""

from collections.abc import Callable

from arkjax.models.config import Experts, ModelConfig, RopeScaling

_RELEASED = {"dtype": "bfloat16", "param_dtype": "bfloat16"}


def _qwen2(d: int, layers: int, heads: int, kv: int, ff: int, vocab: int, tied: bool):
    return ModelConfig(
        vocab_size=vocab,
        d_model=d,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=d // heads,
        d_ff=ff,
        rope_theta=1e6,
        qkv_bias=True,
        scale_embeddings=False,
        tie_embeddings=tied,
        max_context=32_768,
        **_RELEASED,
    )


def qwen2_5_0_5b() -> ModelConfig:
    """Qwen2.5 0.5B (arXiv 2412.15115)."""
    return _qwen2(896, 24, 14, 2, 4864, 151_936, True)


def qwen2_5_1_5b() -> ModelConfig:
    """Qwen2.5 1.5B."""
    return _qwen2(1536, 28, 12, 2, 8960, 151_936, True)


def qwen2_5_3b() -> ModelConfig:
    """Qwen2.5 3B."""
    return _qwen2(2048, 36, 16, 2, 11_008, 151_936, True)


def qwen2_5_7b() -> ModelConfig:
    """Qwen2.5 7B."""
    return _qwen2(3584, 28, 28, 4, 18_944, 152_064, False)


def qwen2_5_14b() -> ModelConfig:
    """Qwen2.5 14B."""
    return _qwen2(5120, 48, 40, 8, 13_824, 152_064, False)


def qwen2_5_32b() -> ModelConfig:
    """Qwen2.5 32B."""
    return _qwen2(5120, 64, 40, 8, 27_648, 152_064, False)


def qwen2_5_72b() -> ModelConfig:
    """Qwen2.5 72B."""
    return _qwen2(8192, 80, 64, 8, 29_568, 152_064, False)


def _qwen3(d: int, layers: int, heads: int, kv: int, ff: int, tied: bool, **more) -> ModelConfig:
    return ModelConfig(
        vocab_size=151_936,
        d_model=d,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=128,
        d_ff=ff,
        rope_theta=1e6,
        qk_norm=True,
        scale_embeddings=False,
        tie_embeddings=tied,
        max_context=40_960,
        **_RELEASED,
        **more,
    )


def qwen3_0_6b() -> ModelConfig:
    """Qwen3 0.6B (arXiv 2505.09388)."""
    return _qwen3(1024, 28, 16, 8, 3072, True)


def qwen3_1_7b() -> ModelConfig:
    """Qwen3 1.7B."""
    return _qwen3(2048, 28, 16, 8, 6144, True)


def qwen3_4b() -> ModelConfig:
    """Qwen3 4B."""
    return _qwen3(2560, 36, 32, 8, 9728, True)


def qwen3_8b() -> ModelConfig:
    """Qwen3 8B."""
    return _qwen3(4096, 36, 32, 8, 12_288, False)


def qwen3_14b() -> ModelConfig:
    """Qwen3 14B."""
    return _qwen3(5120, 40, 40, 8, 17_408, False)


def qwen3_32b() -> ModelConfig:
    """Qwen3 32B."""
    return _qwen3(5120, 64, 64, 8, 25_600, False)


def qwen3_30b_a3b() -> ModelConfig:
    """Qwen3 30B-A3B: 128 experts, 8 a token."""
    return _qwen3(2048, 48, 32, 4, 768, False, experts=Experts(number=128, per_token=8))


def _llama(
    d: int, layers: int, heads: int, kv: int, head_dim: int, ff: int, vocab: int, **more
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        d_model=d,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=head_dim,
        d_ff=ff,
        norm_eps=1e-5,
        scale_embeddings=False,
        **_RELEASED,
        **more,
    )


def _llama2(d: int, layers: int, heads: int, kv: int, ff: int) -> ModelConfig:
    return _llama(d, layers, heads, kv, 128, ff, 32_000, tie_embeddings=False, max_context=4096)


def llama2_7b() -> ModelConfig:
    """Llama 2 7B (arXiv 2307.09288)."""
    return _llama2(4096, 32, 32, 32, 11_008)


def llama2_13b() -> ModelConfig:
    """Llama 2 13B."""
    return _llama2(5120, 40, 40, 40, 13_824)


def llama2_70b() -> ModelConfig:
    """Llama 2 70B."""
    return _llama2(8192, 80, 64, 8, 28_672)


def _llama3(
    d: int,
    layers: int,
    heads: int,
    head_dim: int,
    ff: int,
    *,
    tied: bool = False,
    stretch: float | None = None,
    context: int = 131_072,
) -> ModelConfig:
    scaling = None if stretch is None else RopeScaling("llama3", stretch, original_context=8192)
    return _llama(
        d,
        layers,
        heads,
        8,
        head_dim,
        ff,
        128_256,
        rope_theta=5e5,
        rope_scaling=scaling,
        tie_embeddings=tied,
        max_context=context,
    )


def llama3_8b() -> ModelConfig:
    """Llama 3 8B (arXiv 2407.21783)."""
    return _llama3(4096, 32, 32, 128, 14_336, context=8192)


def llama3_70b() -> ModelConfig:
    """Llama 3 70B."""
    return _llama3(8192, 80, 64, 128, 28_672, context=8192)


def llama3_1_8b() -> ModelConfig:
    """Llama 3.1 8B."""
    return _llama3(4096, 32, 32, 128, 14_336, stretch=8.0)


def llama3_1_70b() -> ModelConfig:
    """Llama 3.1 70B."""
    return _llama3(8192, 80, 64, 128, 28_672, stretch=8.0)


def llama3_2_1b() -> ModelConfig:
    """Llama 3.2 1B."""
    return _llama3(2048, 16, 32, 64, 8192, tied=True, stretch=32.0)


def llama3_2_3b() -> ModelConfig:
    """Llama 3.2 3B."""
    return _llama3(3072, 28, 24, 128, 8192, tied=True, stretch=32.0)


def mistral_7b() -> ModelConfig:
    """Mistral 7B v0.1 (arXiv 2310.06825), with its window of 4,096 tokens."""
    return _llama(
        4096,
        32,
        32,
        8,
        128,
        14_336,
        32_000,
        sliding_window=4096,
        attention_pattern=("local",),
        tie_embeddings=False,
        max_context=32_768,
    )


def mistral_7b_v0_3() -> ModelConfig:
    """Mistral 7B v0.3: no window, a larger vocabulary."""
    return _llama(
        4096,
        32,
        32,
        8,
        128,
        14_336,
        32_768,
        rope_theta=1e6,
        tie_embeddings=False,
        max_context=32_768,
    )


def _gemma(
    d: int, layers: int, heads: int, kv: int, head_dim: int, ff: int, vocab: int, **more
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        d_model=d,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv,
        head_dim=head_dim,
        d_ff=ff,
        zero_centered_norm=True,
        activation="gelu_tanh",
        **_RELEASED,
        **more,
    )


def gemma_2b() -> ModelConfig:
    """Gemma 2B (arXiv 2403.08295)."""
    return _gemma(2048, 18, 8, 1, 256, 16_384, 256_000, max_context=8192)


def gemma_7b() -> ModelConfig:
    """Gemma 7B."""
    return _gemma(3072, 28, 16, 16, 256, 24_576, 256_000, max_context=8192)


def _gemma2(
    d: int, layers: int, heads: int, kv: int, head_dim: int, ff: int, query_scalar: int
) -> ModelConfig:
    return _gemma(
        d,
        layers,
        heads,
        kv,
        head_dim,
        ff,
        256_000,
        post_norms=True,
        attention_scale=query_scalar**-0.5,
        attention_soft_cap=50.0,
        logit_soft_cap=30.0,
        sliding_window=4096,
        attention_pattern=("local", "global"),
        max_context=8192,
    )


def gemma2_2b() -> ModelConfig:
    """Gemma 2 2B (arXiv 2408.00118)."""
    return _gemma2(2304, 26, 8, 4, 256, 9216, 256)


def gemma2_9b() -> ModelConfig:
    """Gemma 2 9B."""
    return _gemma2(3584, 42, 16, 8, 256, 14_336, 256)


def gemma2_27b() -> ModelConfig:
    """Gemma 2 27B; its queries are scaled by the width of a head, D / H = 144, that it has not."""
    return _gemma2(4608, 46, 32, 16, 128, 36_864, 144)


def _gemma3(
    d: int,
    layers: int,
    heads: int,
    kv: int,
    head_dim: int,
    ff: int,
    *,
    vocab: int = 262_208,
    query_scalar: int = 256,
    window: int = 1024,
    stretch: float | None = 8.0,
    context: int = 131_072,
) -> ModelConfig:
    return _gemma(
        d,
        layers,
        heads,
        kv,
        head_dim,
        ff,
        vocab,
        post_norms=True,
        qk_norm=True,
        attention_scale=query_scalar**-0.5,
        rope_theta=1e6,
        rope_scaling=None if stretch is None else RopeScaling("linear", stretch),
        local_rope_theta=1e4,
        sliding_window=window,
        attention_pattern=("local",) * 5 + ("global",),
        max_context=context,
    )


def gemma3_1b() -> ModelConfig:
    """Gemma 3 1B (arXiv 2503.19786)."""
    return _gemma3(
        1152, 26, 4, 1, 256, 6912, vocab=262_144, window=512, stretch=None, context=32_768
    )


def gemma3_4b() -> ModelConfig:
    """Gemma 3 4B, the language model."""
    return _gemma3(2560, 34, 8, 4, 256, 10_240)


def gemma3_12b() -> ModelConfig:
    """Gemma 3 12B, the language model."""
    return _gemma3(3840, 48, 16, 8, 256, 15_360)


def gemma3_27b() -> ModelConfig:
    """Gemma 3 27B, the language model."""
    return _gemma3(5376, 62, 32, 16, 128, 21_504, query_scalar=168)


def tiny() -> ModelConfig:
    """A decoder for tests and trials: every part of Qwen3 in 0.1M parameters."""
    return ModelConfig(
        vocab_size=256,
        d_model=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        d_ff=192,
        qk_norm=True,
        scale_embeddings=False,
        max_context=512,
    )


PRESETS: dict[str, Callable[[], ModelConfig]] = {
    preset.__name__: preset
    for preset in (
        qwen2_5_0_5b,
        qwen2_5_1_5b,
        qwen2_5_3b,
        qwen2_5_7b,
        qwen2_5_14b,
        qwen2_5_32b,
        qwen2_5_72b,
        qwen3_0_6b,
        qwen3_1_7b,
        qwen3_4b,
        qwen3_8b,
        qwen3_14b,
        qwen3_32b,
        qwen3_30b_a3b,
        llama2_7b,
        llama2_13b,
        llama2_70b,
        llama3_8b,
        llama3_70b,
        llama3_1_8b,
        llama3_1_70b,
        llama3_2_1b,
        llama3_2_3b,
        mistral_7b,
        mistral_7b_v0_3,
        gemma_2b,
        gemma_7b,
        gemma2_2b,
        gemma2_9b,
        gemma2_27b,
        gemma3_1b,
        gemma3_4b,
        gemma3_12b,
        gemma3_27b,
        tiny,
    )
}
