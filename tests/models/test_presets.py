"""The published sizes."""

import dataclasses
import json

import jax
import pytest

from arkjax.errors import ConfigError
from arkjax.models.config import Experts, ModelConfig, RopeScaling, config_from_json
from arkjax.models.huggingface.config_json import config_to_hf
from arkjax.models.presets import PRESETS
from arkjax.models.weights import init_weights, num_parameters, weight_specs

pytestmark = pytest.mark.fast

# Parameters as the released safetensors files count them, a tied head once. Gemma 3 from 4B up is
# released with a vision tower and its projector, which are taken off: 419,816,304 parameters at 4B,
# 421,290,864 at 12B and 423,060,336 at 27B.
PUBLISHED = {
    "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304,
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_14b": 14_770_033_664,
    "qwen2_5_32b": 32_763_876_352,
    "qwen2_5_72b": 72_706_203_648,
    "qwen3_0_6b": 751_632_384 - 151_936 * 1024,  # The file holds the tied head as well.
    "qwen3_1_7b": 2_031_739_904 - 151_936 * 2048,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "qwen3_14b": 14_768_307_200,
    "qwen3_32b": 32_762_123_264,
    "qwen3_30b_a3b": 30_532_122_624,
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3_1_8b": 8_030_261_248,
    "llama3_1_70b": 70_553_706_496,
    "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824,
    "mistral_7b": 7_241_732_096,
    "mistral_7b_v0_3": 7_248_023_552,
    "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma2_27b": 27_227_128_320,
    "gemma3_1b": 999_885_952,
    "gemma3_4b": 4_300_079_472 - 419_816_304,
    "gemma3_12b": 12_187_325_040 - 421_290_864,
    "gemma3_27b": 27_432_406_640 - 423_060_336,
}


def test_every_preset_is_checked():
    assert set(PUBLISHED) == set(PRESETS) - {"tiny"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    config = PRESETS[name]()
    assert num_parameters(config) == PUBLISHED[name]
    shapes = jax.eval_shape(lambda: init_weights(config, 0))
    assert sum(w.size for w in shapes.values()) == PUBLISHED[name]
    assert {w.dtype for w in shapes.values()} == {jax.numpy.dtype("bfloat16")}


@pytest.mark.parametrize("name", PRESETS)
def test_transformers_makes_as_many_of_the_exported_config(name, transformers):
    import torch

    config = PRESETS[name]()
    exported = config_to_hf(config)
    kind = exported.pop("model_type")
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(kind, **exported)
        )
    assert model.num_parameters() == num_parameters(config)


@pytest.mark.parametrize("name", PRESETS)
def test_configs_survive_json(name):
    config = PRESETS[name]()
    assert config_from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_every_weight_can_be_sharded():
    """Each axis of each weight has a name that sharding rules know, or none."""
    from arkjax.sharding import ShardingRules

    known = {field.name for field in dataclasses.fields(ShardingRules)} | {None}
    for preset in PRESETS.values():
        for name, spec in weight_specs(preset()).items():
            assert len(spec.axes) == len(spec.shape), name
            assert set(spec.axes) <= known, name


TINY = PRESETS["tiny"]()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: dataclasses.replace(TINY, sliding_window=8), "sliding_window"),
        (lambda: dataclasses.replace(TINY, attention_pattern=("local",)), "sliding_window"),
        (lambda: Experts(number=4, per_token=5), "per_token"),
        (lambda: Experts(number=4, per_token=0), "per_token"),
        (lambda: RopeScaling("linear", 0.5), "factor"),
        (lambda: RopeScaling("llama3", 8.0, low_freq_factor=4.0), "low_freq_factor"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(make, named):
    with pytest.raises(ConfigError, match=named):
        make()


def test_unknown_fields_of_a_stored_config_are_refused():
    fields = dataclasses.asdict(TINY)
    with pytest.raises(TypeError, match="colour"):
        config_from_json(fields | {"colour": 1})
    with pytest.raises(TypeError, match="vocab_size"):
        config_from_json({"d_model": 4})
    assert isinstance(config_from_json(fields), ModelConfig)
