"""What the loop is made of: metrics, optimizer, base rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.models.config import ModelConfig
from arkjax.models.weights import WeightSpec, weight_specs
from arkjax.shipped import shipped_path
from arkjax.tasks.embedded_sets import SHIPPED_WORLD
from arkjax.tasks.world_documents import make_documents
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.training.base import base_rows, document_examples
from arkjax.training.metrics import MetricsLog, read_metrics
from arkjax.training.optimizer import OptimizerConfig, make_optimizer

pytestmark = pytest.mark.fast
OPTIMIZER = OptimizerConfig(1e-2, 0, 0.1, 0.9, 0.98, 0.5, 1.0)


def test_rewinding_forgets_later_steps_and_a_line_that_was_cut_off(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append(step, loss=1 / step)
    kept = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    log.rewind(2)
    assert (tmp_path / "metrics.jsonl").read_text() == "".join(kept)
    log.rewind(0)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match="metrics.jsonl, line 2 is damaged"):
        read_metrics(path)


VECTOR = {"w": WeightSpec((2,), (None,), inputs=1)}


def test_norm_scales_do_not_decay_and_everything_else_does():
    config = ModelConfig(32, 16, 2, 2, 1, 8, 16, qk_norm=True, tie_embeddings=False)
    weights = {name: jnp.ones(spec.shape) for name, spec in weight_specs(config).items()}
    optimizer = make_optimizer(OPTIMIZER, 10, weight_specs(config))
    nothing = jax.tree.map(jnp.zeros_like, weights)
    updates, _ = optimizer.update(nothing, optimizer.init(weights), weights)
    still = {name for name, update in updates.items() if not np.asarray(update).any()}
    assert still == {name for name, spec in weight_specs(config).items() if spec.inputs == 0}
    for name in updates.keys() - still:
        np.testing.assert_allclose(updates[name], -1e-2 * 0.5, rtol=1e-5)


def test_gradients_are_clipped_to_their_norm():
    optimizer = make_optimizer(dataclasses.replace(OPTIMIZER, weight_decay=0.0), 10, VECTOR)
    weights = {"w": jnp.zeros(3)}
    # Adam's first step has the size of the learning rate whatever the gradient: its state tells.
    _, state = optimizer.update(
        {"w": jnp.array([300.0, 0, 400.0])}, optimizer.init(weights), weights
    )
    first_moment = next(x for x in jax.tree.leaves(state) if np.shape(x) == (3,))
    np.testing.assert_allclose(first_moment, 0.1 * np.array([0.6, 0, 0.8]), rtol=1e-5)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (5, 1), (0, 4), (9, 4), (2, 4)])
def test_the_learning_rate_is_finite_and_never_above_its_peak(warmup, steps):
    config = dataclasses.replace(OPTIMIZER, warmup_steps=warmup, clip_norm=1e9)
    optimizer = make_optimizer(config, steps, VECTOR)
    weights = {"w": jnp.ones(2)}
    state = optimizer.init(weights)
    for _ in range(steps):
        updates, state = optimizer.update({"w": jnp.zeros(2)}, state, weights)
        # Without a gradient a step is the learning rate times the weight decay.
        assert (-np.asarray(updates["w"]) <= 1e-2 * 0.5 * (1 + 1e-6)).all()
        assert np.isfinite(np.asarray(updates["w"])).all()


@pytest.mark.parametrize("name", ["q", "k", "v", "o", "gate", "up", "down"])
def test_muon_steps_along_all_directions_of_a_layer_alike(name):
    """Its update is nearly orthogonal as a matrix from inputs to outputs, in every layer."""
    config = ModelConfig(32, 16, 2, 2, 1, 8, 24, qk_norm=True)
    specs = weight_specs(config)
    weights = {n: jnp.zeros(spec.shape) for n, spec in specs.items()}
    keys = dict(zip(specs, jax.random.split(jax.random.key(0), len(specs)), strict=True))
    gradients = {n: jax.random.normal(keys[n], spec.shape) for n, spec in specs.items()}
    muon = dataclasses.replace(OPTIMIZER, muon_learning_rate=1e-2)
    optimizer = make_optimizer(muon, 10, specs)
    updates, _ = optimizer.update(gradients, optimizer.init(weights), weights)
    for layer in np.asarray(updates[f"layers_{name}"]):
        # "o" reads the heads [H, h], all others a vector.
        matrix = layer.reshape(16, -1) if name == "o" else layer.reshape(-1, layer.shape[-1])
        spread = np.linalg.svd(matrix, compute_uv=False)
        # Five Newton-Schulz steps leave singular values within 0.7 and 1.2 of their mean or so.
        assert spread.max() / spread.min() < 2.5
        # The size of AdamW's: a root mean square of 0.2 times the learning rate.
        rms = np.sqrt((matrix**2).mean())
        assert 0.5 * 0.2e-2 < rms < 1.5 * 0.2e-2


@pytest.mark.parametrize(
    "field",
    ["final_fraction", "beta1", "beta2", "learning_rate", "clip_norm", "muon_learning_rate"],
)
def test_impossible_optimizers_are_refused(field):
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(OPTIMIZER, **{field: -0.5})


# --- base rows ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))


def test_documents_teach_what_is_said_and_not_who_speaks(tokenizer):
    chat = PlainChat(tokenizer)
    documents = [d for d, _ in zip(make_documents(SHIPPED_WORLD, 0), range(40), strict=False)]
    assert any(len(document.turns) > 2 for document in documents)
    for document, example in zip(
        documents, document_examples(documents, tokenizer, chat), strict=True
    ):
        learned = [
            token
            for token, weight in zip(example.target_ids, example.target_weights, strict=True)
            if weight
        ]
        spoken = [[*tokenizer.encode(turn.text), chat.end_id] for turn in document.turns]
        assert learned == [token for turn in spoken for token in turn]
        assert tokenizer.decode(example.prompt_ids) == (
            f"question: {document.question} {document.turns[0].byline}:"
        )
        # Read as one text it is the transcript that a team's agents see.
        whole = list(chat.question(document.question))
        for turn, words in zip(document.turns, spoken, strict=True):
            whole += [*chat.turn(turn.byline), *words]
        assert [*example.prompt_ids, *example.target_ids] == whole


def test_base_rows_ask_no_excluded_question_and_repeat_for_a_seed(tokenizer):
    chat = PlainChat(tokenizer)
    first = next(make_documents(SHIPPED_WORLD, 0)).question
    import hashlib

    exclude = {hashlib.sha256(first.encode()).hexdigest()}

    def prompts(seed, exclude):
        documents = make_documents(SHIPPED_WORLD, seed, exclude)
        rows = base_rows(documents, tokenizer, chat, 256, 8)
        assert abs(rows.num_rows - 8) <= 2
        return [rows.example(i).prompt_ids for i in range(len(rows.placements))]

    opening = tuple(chat.question(first))
    assert prompts(0, ())[0][: len(opening)] == opening
    assert prompts(0, ()) == prompts(0, ()) != prompts(1, ())
    assert all(prompt[: len(opening)] != opening for prompt in prompts(0, exclude))


def test_a_document_longer_than_a_row_is_refused_by_name(tokenizer):
    with pytest.raises(ConfigError, match="base.row_length is 40, but a document has"):
        base_rows(make_documents(SHIPPED_WORLD, 0), tokenizer, PlainChat(tokenizer), 40, 8)
