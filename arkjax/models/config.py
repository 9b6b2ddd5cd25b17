"""What a transformer is, as numbers."""

import dataclasses
from typing import Literal

from arkjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of one decoder.

    Attributes:
      vocab_size: V, rows of the embedding.
      d_model: D, width of the residual stream.
      num_layers: L.
      num_heads: H, query heads.
      num_kv_heads: K, key and value heads; H must be a multiple of it.
      head_dim: h, width of one head; even, for RoPE.
      d_ff: F, width of the SwiGLU layer.
      rope_theta: base of the rotary frequencies.
      norm_eps: added to the mean square in RMSNorm.
      qk_norm: normalise queries and keys per head before RoPE (Qwen3).
      tie_embeddings: the output head is the transposed embedding.
      max_context: longest sequence that the model is meant for.
      dtype: of activations and matrix products; parameters are kept in `param_dtype`.
      param_dtype: of the parameters.
      remat: recompute each layer's activations in the backward pass.
      scan_unroll: layers per turn of the scan over them. 1 compiles one layer whatever the depth; a
        few layers unrolled whole train 1.6 times faster on CPU, where loop bodies run on one core.

    Raises:
      ConfigError: if the numbers do not fit together.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = False
    tie_embeddings: bool = True
    max_context: int = 2048
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    scan_unroll: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise ConfigError(f"model.{field.name} is {value}: it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"model.num_heads is {self.num_heads}: it must be a multiple of "
                f"model.num_kv_heads, which is {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"model.head_dim is {self.head_dim}: RoPE needs an even number")

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        heads = self.num_heads + 2 * self.num_kv_heads
        attention = self.d_model * self.head_dim * (heads + self.num_heads)
        layer = attention + 3 * self.d_model * self.d_ff + 2 * self.d_model
        layer += 2 * self.head_dim if self.qk_norm else 0
        embeddings = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        return embeddings + self.num_layers * layer + self.d_model
