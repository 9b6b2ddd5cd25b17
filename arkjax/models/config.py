"""What a transformer is, as numbers: every supported family is one choice of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from arkjax.errors import ConfigError

Dtype = Literal["float32", "bfloat16", "float16"]
# The matrices of a layer, in the order in which they are used.
Projection = Literal["q", "k", "v", "o", "gate", "up", "down"]
PROJECTIONS: tuple[Projection, ...] = get_args(Projection)
# How frozen matrices are kept; see `models.quantized`.
Quantization = Literal["none", "int8", "nf4"]


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those first trained on.

    Attributes:
      kind: "linear" divides all frequencies by `factor` (arXiv 2306.15595); "llama3" only those
        whose wavelength is long against `original_context`, with a ramp between two bounds (Llama
        3.1, arXiv 2407.21783); "yarn" chooses by their number of rotations, and sharpens attention
        (arXiv 2309.00071).
      factor: of the stretch.
      original_context: T that the unstretched model was trained on.
      low_freq_factor: "llama3": wavelengths above original_context / this are stretched.
      high_freq_factor: "llama3": wavelengths below original_context / this are left alone.
      beta_fast, beta_slow: "yarn": rotations in the original context beyond which a frequency is
        left alone, and below which it is stretched in full.
      attention_factor: "yarn": multiplies sines and cosines; 0 takes 0.1 ln(factor) + 1.
    """

    kind: Literal["linear", "llama3", "yarn"]
    factor: float
    original_context: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ConfigError(f"model.rope_scaling.factor is {self.factor}: it must be at least 1")
        if self.kind == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ConfigError(
                f"model.rope_scaling.low_freq_factor is {self.low_freq_factor}: it must be "
                f"positive and below high_freq_factor, which is {self.high_freq_factor}"
            )


@dataclasses.dataclass(frozen=True)
class Experts:
    """Routed experts in place of one feed-forward layer; each is `d_ff` wide.

    Attributes:
      number: E.
      per_token: k, experts that each token is sent to.
      normalize: the k weights of a token are scaled to sum to one.
    """

    number: int
    per_token: int
    normalize: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.per_token <= self.number:
            raise ConfigError(
                f"model.experts.per_token is {self.per_token}: it must lie between 1 and "
                f"model.experts.number, which is {self.number}"
            )


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters: a matrix W that is frozen acts as W + (alpha / r) B A (arXiv 2106.09685, eq. 3).

    Attributes:
      rank: r, rows of A and columns of B.
      alpha: of the scale alpha / r.
      targets: the matrices that have adapters; of a layer with experts, those of attention only.
    """

    rank: int
    alpha: float
    targets: tuple[Projection, ...] = PROJECTIONS

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}: it must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"lora.alpha is {self.alpha}: it must be positive and finite")
        unknown = [name for name in self.targets if name not in PROJECTIONS]
        if unknown or not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(
                f"lora.targets is {self.targets}: name some of {', '.join(PROJECTIONS)}, each once"
            )

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank


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
      d_ff: F, width of the gated feed-forward layer, or of one expert.
      rope_theta: base of the rotary frequencies.
      rope_scaling: how they are stretched; None leaves them.
      local_rope_theta: base in windowed layers, never stretched (Gemma 3); 0 takes the same as
        elsewhere, stretched as elsewhere.
      sliding_window: tokens, itself included, that a token sees in windowed layers; 0: no window.
      attention_pattern: which layers are windowed: layer i is of the kind at i modulo the length.
      attention_scale: of queries times keys; 0 takes 1 / sqrt(h).
      attention_soft_cap: c of c tanh(scores / c); 0 has none (Gemma 2, arXiv 2408.00118).
      logit_soft_cap: the same for the logits.
      norm_eps: added to the mean square in RMSNorm.
      zero_centered_norm: norm scales are stored as their distance from one (Gemma).
      post_norms: the outputs of attention and feed-forward layer are normalised too (Gemma 2).
      qk_norm: normalise queries and keys per head before RoPE (Qwen 3, Gemma 3).
      qkv_bias: queries, keys and values have a bias (Qwen 2).
      activation: of the gate: "silu" (SwiGLU) or a GELU (GeGLU, arXiv 2002.05202), the exact one
        or its approximation by tanh.
      experts: routed experts; None has one feed-forward layer.
      lora: adapters, beside which all other weights are frozen; None has none and freezes nothing.
      base_quantization: how the layers' matrices are kept. "int8" and "nf4" are for weights that
        are not trained: those under adapters, or of a model that only reads and writes.
      scale_embeddings: embeddings are multiplied by sqrt(D) when they are read.
      tie_embeddings: the output head is the transposed embedding.
      max_context: longest sequence that the model is meant for.
      dtype: of activations and matrix products; parameters are kept in `param_dtype`.
      param_dtype: of the parameters.
      attention: how attention over whole sequences is computed; see `models.self_attention`.
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
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float = 0.0
    sliding_window: int = 0
    attention_pattern: tuple[Literal["global", "local"], ...] = ("global",)
    attention_scale: float = 0.0
    attention_soft_cap: float = 0.0
    logit_soft_cap: float = 0.0
    norm_eps: float = 1e-6
    zero_centered_norm: bool = False
    post_norms: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    experts: Experts | None = None
    lora: Lora | None = None
    base_quantization: Quantization = "none"
    scale_embeddings: bool = True
    tie_embeddings: bool = True
    max_context: int = 2048
    dtype: Dtype = "float32"
    param_dtype: Dtype = "float32"
    attention: Literal["auto", "xla", "cudnn", "splash"] = "auto"
    remat: bool = False
    scan_unroll: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < (field.name != "sliding_window"):
                raise ConfigError(f"model.{field.name} is {value}: it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"model.num_heads is {self.num_heads}: it must be a multiple of "
                f"model.num_kv_heads, which is {self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"model.head_dim is {self.head_dim}: RoPE needs an even number")
        if ("local" in self.attention_pattern) != (self.sliding_window > 0):
            raise ConfigError(
                f"model.sliding_window is {self.sliding_window} and model.attention_pattern "
                f"{self.attention_pattern}: windowed layers and a window need each other"
            )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in get_args(Dtype):
                raise ConfigError(
                    f"model.{name} is {getattr(self, name)!r}: "
                    f"expected one of {', '.join(get_args(Dtype))}"
                )
        if self.base_quantization not in get_args(Quantization):
            raise ConfigError(
                f"model.base_quantization is {self.base_quantization!r}: "
                f"expected one of {', '.join(get_args(Quantization))}"
            )
        routed = {"gate", "up", "down"} & set(self.lora.targets if self.lora else ())
        if self.experts is not None and routed:
            raise ConfigError(
                f"lora.targets is {self.lora.targets}: experts have no adapters, since each would "
                "need its own, in a ragged product of its own; name some of q, k, v, o"
            )

    def is_local(self, layer: int) -> bool:
        """Whether attention in this layer is windowed."""
        return self.attention_pattern[layer % len(self.attention_pattern)] == "local"

    @property
    def query_scale(self) -> float:
        """What queries times keys are multiplied by."""
        return self.attention_scale or self.head_dim**-0.5


def config_from_json(fields: Mapping[str, Any]) -> ModelConfig:
    """The config whose `dataclasses.asdict` went through JSON.

    Raises:
      TypeError: if a field is unknown or missing.
      ConfigError: if the numbers do not fit together.
    """
    values = {name: _tuples(value) for name, value in fields.items()}
    for name, cls in (("rope_scaling", RopeScaling), ("experts", Experts), ("lora", Lora)):
        if values.get(name) is not None:
            values[name] = cls(**{key: _tuples(value) for key, value in values[name].items()})
    return ModelConfig(**values)


def _tuples(value: Any) -> Any:
    # JSON has lists only.
    return tuple(value) if isinstance(value, list) else value
