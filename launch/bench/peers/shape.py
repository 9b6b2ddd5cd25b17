"""The model that benches run where none is trained: 30.5M parameters, the shape of Qwen3."""

from arkjax.models.config import ModelConfig

MODEL = ModelConfig(
    vocab_size=32_000,
    d_model=512,
    num_layers=6,
    num_heads=8,
    num_kv_heads=4,
    head_dim=64,
    d_ff=1024,
    rope_theta=1e6,
    qk_norm=True,
    scale_embeddings=False,
)
