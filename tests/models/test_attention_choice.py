"""The table of which implementation runs where, and what is said when one cannot."""

import dataclasses

import pytest

from arkjax.errors import ConfigError
from arkjax.models.attention_choice import Situation, choose

pytestmark = pytest.mark.fast

TPU = Situation("tpu", "bfloat16", batch=8, heads=32, kv_heads=8, head_dim=128)
GPU = dataclasses.replace(TPU, platform="gpu", capability="9.0")
CPU = dataclasses.replace(TPU, platform="cpu", dtype="float32")


@pytest.mark.parametrize(
    "situation, changes, taken, reason",
    [
        (TPU, {}, "splash", "made for tpu"),
        (TPU, {"dtype": "float32", "soft_cap": 50.0, "head_dim": 80}, "splash", "made for tpu"),
        (TPU, {"batch_shards": 4, "head_shards": 8}, "splash", "made for tpu"),
        (TPU, {"dtype": "float16"}, "xla", "no float16"),
        (TPU, {"batch_shards": 16}, "xla", "8 rows"),
        (TPU, {"head_shards": 16}, "xla", "num_kv_heads is 8"),
        (TPU, {"shared_prefixes": True}, "xla", "splash cannot run: segments of a row share"),
        (GPU, {"shared_prefixes": True}, "xla", "cudnn cannot run: segments of a row share"),
        (GPU, {}, "cudnn", "made for gpu"),
        (GPU, {"dtype": "float16", "head_dim": 256, "head_shards": 2}, "cudnn", "made for gpu"),
        (GPU, {"dtype": "float32"}, "xla", "float32"),
        (GPU, {"soft_cap": 50.0}, "xla", "soft cap"),
        (GPU, {"head_dim": 100}, "xla", "multiple of 8"),
        (GPU, {"head_dim": 264}, "xla", "at most 256"),
        (GPU, {"capability": "8.9", "head_dim": 256}, "xla", "at most 128"),
        (GPU, {"capability": "8.0"}, "cudnn", "made for gpu"),
        (GPU, {"capability": "12.0", "head_dim": 256}, "cudnn", "made for gpu"),
        (GPU, {"capability": "7.5"}, "xla", "7.5"),
        (GPU, {"capability": "gfx90a"}, "xla", "gfx90a"),
        (GPU, {"head_shards": 3}, "xla", "num_kv_heads"),
        (CPU, {}, "xla", "no attention kernel is made for cpu"),
    ],
)
def test_auto(situation, changes, taken, reason):
    choice = choose("auto", dataclasses.replace(situation, **changes))
    assert choice.implementation == taken and reason in choice.reason


@pytest.mark.parametrize(
    "name, situation",
    [("xla", TPU), ("xla", GPU), ("xla", CPU), ("splash", TPU), ("splash", CPU), ("cudnn", GPU)],
)
def test_a_name_is_taken_at_its_word_where_it_can_run(name, situation):
    assert choose(name, situation) == (name, "asked for by name")


@pytest.mark.parametrize(
    "name, situation, changes, reason, remedy",
    [
        ("splash", GPU, {}, "the devices are gpu", "run on a TPU"),
        ("splash", TPU, {"dtype": "float16"}, "no float16", 'model.dtype to "bfloat16"'),
        ("splash", TPU, {"batch_shards": 3}, "8 rows .* 3 devices", "make the batch a multiple"),
        ("splash", TPU, {"heads": 12, "head_shards": 8}, "num_heads is 12", "choose a mesh.tensor"),
        ("cudnn", TPU, {}, "the devices are tpu", "run on one"),
        ("cudnn", CPU, {}, "the devices are cpu", "run on one"),
        ("cudnn", GPU, {"dtype": "float32"}, "model.dtype is float32", 'to "bfloat16"'),
        ("cudnn", GPU, {"soft_cap": 30.0}, "attention_soft_cap is 30.0", 'attention to "xla"'),
        ("cudnn", GPU, {"head_dim": 20}, "model.head_dim is 20", 'attention to "xla"'),
        ("cudnn", GPU, {"capability": "7.0"}, "this is 7.0", "newer one"),
    ],
)
def test_a_name_that_cannot_run_is_refused_with_the_reason_and_the_remedy(
    name, situation, changes, reason, remedy
):
    pattern = f'^model.attention is "{name}".*{reason}.*{remedy}.*"auto"$'
    with pytest.raises(ConfigError, match=pattern):
        choose(name, dataclasses.replace(situation, **changes))


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="model.attention is 'flash'.*auto, xla, cudnn, splash"):
        choose("flash", CPU)
