"""Process reward models: trained in two stages, whole after interruptions, better than chance."""

import contextlib
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arkjax.distillation.reward_rows import plan_batches
from arkjax.errors import ConfigError, DataError
from arkjax.evaluation.process import auroc
from arkjax.models.config import Lora
from arkjax.models.lora import add_lora
from arkjax.models.placement import init_model
from arkjax.models.transformer import Transformer
from arkjax.models.weights import LAYERS
from arkjax.progress import Progress
from arkjax.sharding import ShardingRules
from arkjax.synthesis.judged_answers import UNKNOWN, Judged, JudgedAnswer, Step, StepSet
from arkjax.training.metrics import read_metrics
from arkjax.training.optimizer import OptimizerConfig
from arkjax.training.reward_model import (
    HEAD,
    RewardModel,
    fingerprint,
    load_reward_model,
    placed,
    reward_model_info,
    save_reward_model,
)
from arkjax.training.reward_training import (
    ProcessRewardConfig,
    last_layer,
    reward_loss,
    train_reward_model,
)

LOSSES = ("contrastive", "bce", "implicit")
CONFIG = ProcessRewardConfig(
    batch_rows=8,
    row_length=24,
    chunk_tokens=32,
    log_every=1,
    checkpoint_every=2,
    # A decay that would be seen wherever it reached.
    optimizer=OptimizerConfig(2e-3, 2, 0.1, 0.9, 0.98, 0.5, 1.0),
)


def make_judged(problems=24, seed=0):
    """A step is right if its last token is even: any model can learn that."""
    rng = np.random.default_rng(seed)
    answers, sets = [], []
    for p in range(problems):
        first, prompt = len(answers), tuple(rng.integers(2, 8, 2).tolist())
        for right in (True, False):
            ids, labels = [], []
            for _ in range(2):
                good = right or rng.random() < 0.3
                ids += [*rng.integers(2, 4, 2).tolist(), int(rng.integers(1, 15)) * 2 + (not good)]
                labels.append(float(good))
            ids.append(1)
            name, outcome = f"c{len(answers)}", float(all(labels))
            answers.append(
                JudgedAnswer(f"p{p}", name, prompt, tuple(ids), (3, 6), tuple(labels), outcome)
            )
        sets += [
            StepSet(Step(first, step), (Step(first + 1, step),))
            for step in range(2)
            if answers[-1].labels[step] == 0
        ]
    return Judged(tuple(answers), tuple(sets))


class Interrupted(BaseException):
    """Stands in for Ctrl-C: nothing but the test expects it."""


class StopsAt(Progress):
    """Interrupts the work after some steps of training."""

    def __init__(self, step):
        super().__init__(enabled=False)
        self.left = step

    @contextlib.contextmanager
    def task(self, name, total=None, unit="items", done=0):
        with super().task(name, total, unit, done) as task:
            yield self if unit == "steps" else task

    def advance(self, n, note=""):
        self.left -= n
        if self.left == 0:
            raise Interrupted


@pytest.fixture(scope="module")
def judged():
    return make_judged()


@pytest.fixture(scope="module")
def fit(judged, model, mesh_of):
    """A function that trains a reward model."""

    def fit(directory, progress=None, mesh=None, start=None, data=judged, **changes):
        return train_reward_model(
            start or model,
            data,
            dataclasses.replace(CONFIG, **changes),
            directory,
            seed=5,
            mesh=mesh or mesh_of(),
            rules=ShardingRules(),
            progress=progress or Progress(enabled=False),
            name="judge",
            info={"tokenizer": "abc"},
        )

    return fit


def arrays(reward):
    found = {name: np.asarray(array) for name, array in reward.model.arrays().items()}
    return found | ({} if reward.head is None else {HEAD: np.asarray(reward.head)})


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(fit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    return fit(directory), directory


# --- what learns, and what does not ---------------------------------------------------------------


def gradients(model, judged, loss, mesh):
    """The loss's gradient to all weights, and the batch."""
    config = dataclasses.replace(CONFIG, loss=loss)
    batches = plan_batches(judged, loss, config.batch_rows, config.row_length, 1, 0)
    batch = placed(batches.batch(0, lambda i: np.full(7, -2.0)), mesh)
    head = jax.random.normal(jax.random.key(0), (model.config.d_model,)) / 4
    weights = model.arrays() | {HEAD: head}
    function = reward_loss(model.config, config, mesh)
    return jax.grad(lambda w: function(w, batch)[0])(weights), batch


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_reaches_every_weight_that_it_should(loss, model, judged, mesh_of):
    slopes, _ = gradients(model, judged, loss, mesh_of())
    for name, slope in slopes.items():
        size = np.abs(np.asarray(slope))
        if name == HEAD and loss == "implicit":
            assert (size == 0).all()
        elif name == "head" and loss != "implicit":
            assert (size == 0).all()  # of the language model: rewards have their own
        elif name.startswith(LAYERS):
            assert (size.reshape(size.shape[0], -1).max(1) > 1e-7).all(), name
        else:
            assert size.max() > 1e-7, name


@pytest.mark.parametrize("loss", LOSSES)
def test_the_first_stage_moves_the_last_layer_and_the_head_alone(loss, fit, model, tmp_path):
    reward = fit(tmp_path, loss=loss, head_epochs=2, epochs=0)
    for name, before in model.arrays().items():
        before, after = np.asarray(before), np.asarray(reward.model.arrays()[name])
        if name.startswith(LAYERS):
            # Bit by bit, though a decay of 0.5 is on everything that has two axes.
            np.testing.assert_array_equal(after[:-1], before[:-1], err_msg=name)
            assert (after[-1] != before[-1]).any(), name
        else:
            np.testing.assert_array_equal(after, before, err_msg=name)
    assert reward.head is None or np.abs(np.asarray(reward.head)).max() > 0


def test_the_second_stage_moves_everything_else_too(undisturbed, fit, model, tmp_path):
    first = fit(tmp_path, epochs=0)
    final, _ = undisturbed
    unused = {"head"} if not model.config.tie_embeddings else set()
    for name, after in arrays(final).items():
        before = arrays(first)[name]
        if name in unused:
            continue
        if name.startswith(LAYERS):
            assert (after != before).reshape(len(after), -1).any(1).all(), name
        else:
            assert (after != before).any(), name


def test_factors_are_one_for_the_last_layer_alone(model):
    factors = last_layer(model.config)
    assert factors.keys() == model.arrays().keys()
    assert factors["layers_q"].ravel().tolist() == [0.0] * (model.config.num_layers - 1) + [1.0]
    assert factors["embedding"] == factors["final_norm"] == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_what_no_step_reads_has_no_gradient(loss, model, judged, mesh_of):
    """Words after the last step, padding, and empty rows: changed, they change nothing at all."""
    slopes, batch = gradients(model, judged, loss, mesh_of())
    tokens = np.asarray(batch.tokens)
    read = np.asarray(batch.segment_ids) > 0
    other = np.where(read, tokens, 7)
    if loss != "implicit":
        last = tokens == 1  # the end token belongs to no step
        other = np.where(last & read, 9, other)
    assert (other != tokens).any()
    config = dataclasses.replace(CONFIG, loss=loss)
    function = reward_loss(model.config, config, mesh_of())
    head = jax.random.normal(jax.random.key(0), (model.config.d_model,)) / 4
    changed = batch._replace(tokens=jnp.asarray(other))
    again = jax.grad(lambda w: function(w, changed)[0])(model.arrays() | {HEAD: head})
    if not model.config.tie_embeddings:
        assert_same(*({k: np.asarray(v) for k, v in s.items()} for s in (slopes, again)))
    for name in slopes:
        if name != "embedding":
            np.testing.assert_allclose(again[name], slopes[name], atol=1e-7, err_msg=name)


# --- whole, whatever happens ----------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["contrastive", "implicit"])
def test_interrupted_training_ends_bit_by_bit_the_same(loss, fit, tmp_path, undisturbed):
    whole = undisturbed[0] if loss == "contrastive" else fit(tmp_path / "whole", loss=loss)
    path = undisturbed[1] if loss == "contrastive" else tmp_path / "whole"
    steps = [len(read_metrics(path / s / "metrics.jsonl")) for s in ("head", "all")]
    assert min(steps) > 2
    # In the first stage, right at its end, and in the second one: the counts are per process.
    for stop in (steps[0] - 1, steps[0], 3):
        with pytest.raises(Interrupted):
            fit(tmp_path / "broken", StopsAt(stop), loss=loss)
    assert_same(arrays(fit(tmp_path / "broken", loss=loss)), arrays(whole))
    for stage in ("head", "all"):
        logs = [p / stage / "metrics.jsonl" for p in (tmp_path / "broken", path)]
        assert logs[0].read_bytes() == logs[1].read_bytes()
        assert not (path / stage / "checkpoints").exists()
        assert not (path / stage / "model").exists()


def test_what_was_trained_is_read_and_not_trained_again(undisturbed, fit):
    reward, directory = undisturbed
    again = fit(directory, StopsAt(1))
    assert_same(arrays(again), arrays(reward))


@pytest.mark.parametrize("loss", LOSSES)
def test_every_mesh_trains_the_same(loss, fit, mesh_of, tmp_path):
    one = fit(tmp_path / "one", loss=loss, epochs=1)
    many = fit(tmp_path / "many", loss=loss, epochs=1, mesh=mesh_of(2, 2, 2))
    for name, array in arrays(one).items():
        # fp32: sums over rows are taken in another order, and Adam divides by their size.
        np.testing.assert_allclose(arrays(many)[name], array, atol=2e-4, err_msg=name)


def test_adapters_alone_are_trained(fit, model, tmp_path):
    adapted = add_lora(model, Lora(rank=2, alpha=4.0, targets=("q", "up")), seed=1)
    reward = fit(tmp_path / "first", start=adapted, head_epochs=2, epochs=0)
    for name, before in adapted.arrays().items():
        after = np.asarray(reward.model.arrays()[name])
        before = np.asarray(before)
        if name.endswith(("_lora_a", "_lora_b")):
            np.testing.assert_array_equal(after[:-1], before[:-1])
            assert (after[-1] != before[-1]).any()
        else:
            np.testing.assert_array_equal(after, before)
    both = fit(tmp_path / "both", start=adapted)
    for name in ("layers_q_lora_b", "layers_up_lora_b"):
        changed = np.asarray(both.model.arrays()[name]) != np.asarray(adapted.arrays()[name])
        assert changed.reshape(len(changed), -1).any(1).all()
    np.testing.assert_array_equal(both.model.arrays()["layers_q"], model.arrays()["layers_q"])
    read = load_reward_model(tmp_path / "both" / "model", model.mesh, ShardingRules())
    assert_same(arrays(read), arrays(both))


# --- scoring --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judges(model):
    """One reward model with a head and one without."""
    head = jax.random.normal(jax.random.key(1), (model.config.d_model,))
    moved = Transformer(
        model.config, {n: w + 0.01 * jnp.sign(w) for n, w in model.arrays().items()}, model.mesh
    )
    return {
        "bce": RewardModel(model, "bce", head),
        "implicit": RewardModel(moved, "implicit", None, model, 0.5),
    }


@pytest.mark.parametrize("kind", ["bce", "implicit"])
def test_what_stands_beside_an_answer_does_not_change_its_rewards(kind, judges):
    answers = make_judged(9).answers
    together = judges[kind].rewards(answers, 4, 40)
    for rows, row_length in ((1, 9), (2, 33)):
        alone = judges[kind].rewards(answers[::-1], rows, row_length)[::-1]
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)  # fp32, other widths
    assert all(((0 < r) & (r < 1)).all() and r.shape == (2,) for r in together)


def test_rewards_are_those_of_one_plain_forward_pass(judges, model):
    answer = make_judged(1).answers[0]
    ids = jnp.asarray([[*answer.prompt_ids, *answer.answer_ids]])
    hidden = model(ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids))[0]
    columns = [len(answer.prompt_ids) + end - 1 for end in answer.step_ends]
    expected = np.asarray(hidden[jnp.asarray(columns)]) @ np.asarray(judges["bce"].head)
    np.testing.assert_allclose(judges["bce"].logits([answer], 1, 16)[0], expected, atol=1e-5)

    implicit, n = judges["implicit"], len(answer.prompt_ids)

    def logprobs(of):
        z = of.logits(of(ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids)))[0]
        log_q = jax.nn.log_softmax(z[n - 1 : -1])
        return np.asarray(jnp.take_along_axis(log_q, ids[0, n:, None], 1))[:, 0]

    ratio = 0.5 * (logprobs(implicit.model) - logprobs(implicit.reference))
    sums = [ratio[:end].sum() for end in answer.step_ends]
    np.testing.assert_allclose(implicit.logits([answer], 1, 16)[0], sums, atol=1e-5)
    steps = implicit.logits([answer], 1, 16, implicit="step")[0]
    np.testing.assert_allclose(steps, np.diff(sums, prepend=0), atol=1e-5)


def test_answers_without_steps_have_no_rewards(judges):
    answers = make_judged(2).answers

    class Empty:
        prompt_ids, answer_ids, step_ends = (1, 2), (1,), ()

    found = judges["bce"].rewards([answers[0], Empty, answers[1]], 2, 16)
    assert [len(own) for own in found] == [2, 0, 2]
    with pytest.raises(DataError, match="but a row of the reward model holds 8: raise"):
        judges["bce"].rewards(answers, 2, 8)


@pytest.mark.parametrize("loss", LOSSES)
def test_rewards_tell_right_steps_from_wrong_ones(loss, fit, tmp_path):
    fast = dataclasses.replace(CONFIG.optimizer, learning_rate=2e-2, weight_decay=0.0)
    reward = fit(tmp_path, loss=loss, epochs=3, optimizer=fast, data=make_judged(96), beta=1.0)
    answers = make_judged(40, seed=9).answers
    rewards = reward.rewards(answers, 8, 24, implicit="step")
    right = [label == 1 for answer in answers for label in answer.labels]
    # Outcomes alone say less of each step.
    least = 0.85 if loss == "implicit" else 0.95
    assert auroc(np.concatenate(rewards), right) > least


# --- on the disk ----------------------------------------------------------------------------------


def test_a_reward_model_comes_back_bit_by_bit(undisturbed, mesh_of):
    reward, directory = undisturbed
    for mesh in (mesh_of(), mesh_of(2, 2, 2)):
        read = load_reward_model(directory / "model", mesh, ShardingRules())
        assert_same(arrays(read), arrays(reward))
        assert read.loss == "contrastive"
    assert reward_model_info(directory / "model") == {"tokenizer": "abc"}


def test_damage_is_found(undisturbed, mesh_of, tmp_path):
    def load(path):
        return load_reward_model(path, mesh_of(), ShardingRules())

    source = undisturbed[1] / "model"
    for number, name in enumerate(("head/head.npy", "head/meta.json", "model/model.json")):
        path = tmp_path / str(number)
        shutil.copytree(source, path)
        data = bytearray((path / name).read_bytes())
        data[-3] ^= 1
        (path / name).write_bytes(data)
        with pytest.raises(DataError, match=name.split("/")[1]):
            load(path)
    # A whole model, but of another reward model.
    path = tmp_path / "other"
    shutil.copytree(source, path)
    text = (path / "model" / "model.json").read_text()
    (path / "model" / "model.json").write_text(text + " ")
    with pytest.raises(DataError, match="not what was written"):
        load(path)
    with pytest.raises(DataError, match="meta.json is missing: no reward model here"):
        load(tmp_path / "nowhere")


def test_an_implicit_model_needs_its_own_reference(judges, model, mesh_of, tmp_path):
    save_reward_model(tmp_path / "r", judges["implicit"])
    answers, rules = make_judged(3).answers, ShardingRules()
    read = load_reward_model(tmp_path / "r", mesh_of(), rules, reference=model)
    for a, b in zip(
        read.rewards(answers, 2, 24), judges["implicit"].rewards(answers, 2, 24), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(DataError, match="needs its reference"):
        load_reward_model(tmp_path / "r", mesh_of(), rules)
    other = init_model(model.config, 1, mesh_of(), rules)
    with pytest.raises(DataError, match="trained beside another model"):
        load_reward_model(tmp_path / "r", mesh_of(), rules, reference=other)


def test_fingerprints_tell_weights_apart_on_any_mesh(model, mesh_of):
    again = init_model(model.config, 0, mesh_of(2, 2, 2), ShardingRules())
    assert fingerprint(again) == fingerprint(model)
    weights = dict(model.arrays())
    weights["layers_q"] = weights["layers_q"][::-1]
    assert fingerprint(Transformer(model.config, weights)) != fingerprint(model)
    weights = dict(model.arrays())
    weights["embedding"] = weights["embedding"].at[3, 2].multiply(1 + 1e-6)
    assert fingerprint(Transformer(model.config, weights)) != fingerprint(model)


# --- refusals -------------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused(fit, judged, mesh_of, tmp_path):
    with pytest.raises(ConfigError, match="process_reward.batch_rows is 6: it must be a multiple"):
        fit(tmp_path, batch_rows=6, mesh=mesh_of(4, 1, 1))
    with pytest.raises(DataError, match="raise its row_length"):
        fit(tmp_path, row_length=8)
    blind = [dataclasses.replace(a, outcome=UNKNOWN) for a in judged.answers]
    with pytest.raises(DataError, match="implicit loss learns from"):
        fit(tmp_path, data=Judged(tuple(blind)), loss="implicit")
