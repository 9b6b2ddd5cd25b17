"""Training of adapters: they alone change, cost memory and are kept; the base is only read."""

import dataclasses
import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import arkjax
from arkjax import config
from arkjax.api import TrainingRows
from arkjax.distillation.objective import Objective
from arkjax.distillation.rows import Batch, batch, order
from arkjax.errors import ConfigError
from arkjax.models.config import Lora, ModelConfig
from arkjax.models.lora import add_lora, trainable
from arkjax.models.placement import load_model
from arkjax.models.transformer import Transformer
from arkjax.models.weights import LAYERS, weight_specs
from arkjax.progress import Progress
from arkjax.run_config import RunConfig, StudentConfig
from arkjax.rundir import RunDirectory
from arkjax.session import Session
from arkjax.sharding import ShardingRules
from arkjax.stages.distill import distill
from arkjax.training.loop import TrainState, training_step
from arkjax.training.metrics import read_metrics
from arkjax.training.optimizer import make_optimizer
from arkjax.training.supervised import Lesson, distillation_loss, train

LORA = Lora(rank=2, alpha=4.0, targets=("q", "o", "up"))


@pytest.fixture(scope="module", autouse=True)
def needs_qwix() -> None:
    """With ARKJAX_PARITY=1 its absence is a failure."""
    if os.environ.get("ARKJAX_PARITY") != "1":
        pytest.importorskip("qwix")


@pytest.fixture(scope="module")
def adapted(model):
    """With fresh adapters over nf4."""
    return add_lora(model, LORA, "nf4", seed=3)


@pytest.fixture(scope="module")
def fit(adapted, rows, training_config, mesh_of):
    """A function that trains the adapters."""

    def fit(directory, progress=None, mesh=None, model=None, **changes):
        settings = dataclasses.replace(training_config, checkpoint_every=3, **changes)
        return train(
            model or adapted,
            rows,
            Objective(),
            settings,
            directory,
            seed=3,
            mesh=mesh or mesh_of(),
            rules=ShardingRules(),
            progress=progress or Progress(enabled=False),
            name="pupil",
        )

    return fit


@pytest.fixture(scope="module")
def undisturbed(fit, tmp_path_factory):
    directory = tmp_path_factory.mktemp("adapters")
    return fit(directory), directory


def arrays(model) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in model.arrays().items()}


def test_adapters_learn_and_the_base_stays_bit_by_bit(adapted, undisturbed):
    trained, directory = undisturbed
    before, after = arrays(adapted), arrays(trained)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == trainable(adapted.config)
    losses = [line["loss"] for line in read_metrics(directory / "metrics.jsonl")]
    assert len(losses) == 6 and np.isfinite(losses).all()


def test_interrupted_training_ends_bit_by_bit_the_same(fit, undisturbed, stops_at, tmp_path):
    with pytest.raises(stops_at.error):
        fit(tmp_path, progress=stops_at(5))
    resumed, expected = arrays(fit(tmp_path)), arrays(undisturbed[0])
    for name in expected:
        np.testing.assert_array_equal(resumed[name], expected[name], err_msg=name)
    logs = [path / "metrics.jsonl" for path in (tmp_path, undisturbed[1])]
    assert logs[0].read_bytes() == logs[1].read_bytes()


def test_checkpoints_hold_adapters_and_their_optimizer_alone(adapted, undisturbed):
    (path,) = (undisturbed[1] / "checkpoints").glob("3")
    import orbax.checkpoint as ocp

    tree = ocp.StandardCheckpointer().metadata(path / "default").item_metadata.tree
    assert tree["weights"].keys() == trainable(adapted.config)
    sizes = [leaf.shape for leaf in jax.tree.leaves(tree) if leaf.shape]
    adapters = sum(adapted.arrays()[name].size for name in trainable(adapted.config))
    # The adapters and two moments of each.
    assert sum(map(np.prod, sizes)) == 3 * adapters


def test_every_mesh_trains_the_same_adapters(fit, undisturbed, mesh_of, tmp_path):
    expected = arrays(undisturbed[0])
    for name, array in arrays(fit(tmp_path, mesh=mesh_of(2, 2, 2))).items():
        # fp32: sums over rows and shards are taken in another order.
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_training_is_that_of_the_matrices_with_adapters_in_them(
    model, rows, fit, training_config, tmp_path
):
    """The same steps with dense logits of a full model whose matrices are W + (alpha / r) B A."""
    start = add_lora(model, LORA, seed=1)
    frozen = start.arrays()
    trained = {name: frozen.pop(name) for name in sorted(trainable(start.config))}
    optimizer = make_optimizer(training_config.optimizer, 2, weight_specs(start.config))

    @jax.jit
    def step(trained, state, b):
        def loss(trained):
            weights = dict(frozen)
            for target in LORA.targets:
                name = LAYERS + target
                factors = trained[f"{name}_lora_b"], trained[f"{name}_lora_a"]
                change = jax.vmap(lambda b, a: jnp.tensordot(b, a, 1))(*factors)
                weights[name] = weights[name] + LORA.alpha / LORA.rank * change
            full = Transformer(model.config, weights)
            log_q = jax.nn.log_softmax(full.logits(full(b.tokens, b.positions, b.segment_ids)))
            nll = -jnp.take_along_axis(log_q, b.targets[..., None], -1)[..., 0]
            return (nll * b.weights).sum() / b.weights.sum()

        updates, state = optimizer.update(jax.grad(loss)(trained), state, trained)
        return optax.apply_updates(trained, updates), state

    expected, state = trained, optimizer.init(trained)
    for number in range(2):
        b = batch(rows, order(rows.num_rows, training_config.batch_rows, 3, number))
        expected, state = step(expected, state, b)
    got = arrays(fit(tmp_path, model=start, steps=2))
    for name, array in expected.items():
        # fp32: sums over chunks and over rows are taken in another order.
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_quantised_weights_are_not_trained_without_adapters(adapted, fit, tmp_path):
    bare = dataclasses.replace(adapted.config, lora=None)
    weights = {n: a for n, a in adapted.arrays().items() if "_lora_" not in n}
    with pytest.raises(ConfigError, match="quantised weights cannot be trained; add adapters"):
        fit(tmp_path, model=Transformer(bare, weights))


# --- memory ---------------------------------------------------------------------------------------


def equations(jaxpr):
    """Every equation of a program, those inside loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.fixture(scope="module")
def traced(training_config, mesh_of):
    """A function that traces the step of a deep model; no two axes have one size by chance."""

    def trace(**changes):
        model = ModelConfig(97, 64, 6, 4, 2, 16, 80, **changes)
        specs = weight_specs(model)
        weights = {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in specs.items()}
        trained = {name: weights.pop(name) for name in trainable(model)}
        optimizer = make_optimizer(training_config.optimizer, 6, specs)
        state = TrainState(
            jax.ShapeDtypeStruct((), jnp.int32), trained, jax.eval_shape(optimizer.init, trained)
        )
        inputs = Batch(
            *(
                jax.ShapeDtypeStruct((3, 11), jnp.float32 if name == "weights" else jnp.int32)
                for name in Batch._fields
            )
        )
        loss = distillation_loss(model, Objective(), training_config, mesh_of())
        step = functools.partial(training_step, loss, optimizer)
        return jax.jit(step, donate_argnums=0).trace(state, weights, Lesson(inputs)), specs

    return trace


@pytest.mark.parametrize(
    ("dtype", "kind", "remat"),
    [("float32", "none", False), ("bfloat16", "int8", False), ("bfloat16", "nf4", True)],
)
def test_no_step_makes_a_second_base_nor_its_gradient(traced, dtype, kind, remat):
    program, specs = traced(dtype=dtype, lora=LORA, base_quantization=kind, remat=remat)
    full, plain = traced(dtype=dtype)
    base = {s.shape for n, s in plain.items() if s.inputs and n.startswith(LAYERS)}
    head = {(97, 64), (64, 97)}

    def made(program, shapes, but=()):
        return {
            (equation.primitive.name, variable.aval.shape)
            for equation in equations(program.jaxpr.jaxpr)
            for variable in equation.outvars
            if getattr(variable.aval, "shape", None) in shapes
            and jnp.issubdtype(variable.aval.dtype, jnp.floating)
            and equation.primitive.name not in but
        }

    # What trains all weights makes these: the search finds what it looks for.
    assert {shape for _, shape in made(full, base)} == base
    assert not made(program, base)
    # The head is turned and cast, on the way to products; its gradient would be a sum.
    calls = {"transpose", "convert_element_type", "jit", "pjit", "stop_gradient", "copy"}
    if dtype != "float32":
        calls.add("mul")  # by one: what binds its cast to a chunk of tokens
    assert made(full, head, calls) and not made(program, head, calls)


def test_a_step_returns_and_replaces_the_adapters_alone(traced):
    program, specs = traced(lora=LORA, base_quantization="int8")
    trained = [s for n, s in specs.items() if "_lora_" in n]
    memory = program.lower().compile().memory_analysis()
    state = 3 * sum(4 * int(np.prod(s.shape)) for s in trained)
    # Beside them a few numbers: counters and metrics.
    assert state <= memory.output_size_in_bytes < state + 1024
    assert memory.alias_size_in_bytes >= state


# --- from the outside -----------------------------------------------------------------------------


def test_a_student_is_distilled_by_its_adapters_alone(model, rows):
    settings = {"steps": 1, "batch_rows": 8}
    student = arkjax.distill(model, TrainingRows(rows, ()), lora=LORA, **settings)
    assert student.config == dataclasses.replace(model.config, lora=LORA)
    assert (student.arrays()["layers_up_lora_b"] != 0).any()
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(student.arrays()[name], array)
    with pytest.raises(ConfigError, match="quantised weights cannot be trained; give adapters"):
        arkjax.distill(model, TrainingRows(rows, ()), base_quantization="nf4", **settings)


# --- a whole run ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_student_of_adapters_is_a_model_like_any_other(tiny_run, tmp_path):
    tiny = config.build(RunConfig, config.load("tiny"))
    student = dataclasses.replace(
        tiny.student, lora=Lora(rank=8, alpha=16.0), base_quantization="nf4"
    )
    tiny = dataclasses.replace(tiny, student=student, students=tiny.students[:1])
    shutil.copytree(
        tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("distill", "evaluate")
    )
    with RunDirectory(tmp_path / "run") as directory:
        session = Session(tiny, directory, 0, Progress(enabled=False))
        path = tmp_path / "distill"
        distill(session, path)
        name = tiny.students[0]
        losses = [line["loss"] for line in read_metrics(path / name / "metrics.jsonl")]
        assert losses[-1] < 0.9 * losses[0]
        base = session.model("base")
        made = load_model(path / name / "model", session.mesh, tiny.sharding)
        assert made.config == base.config
        assert (path / name / "adapter" / "adapter_model.safetensors").exists()
        assert (np.asarray(made.arrays()["layers_q"]) != base.arrays()["layers_q"]).any()
        for same in ("embedding", "layers_attn_norm", "final_norm"):
            np.testing.assert_array_equal(made.arrays()[same], base.arrays()[same])


@pytest.mark.fast
def test_students_with_a_quantised_base_need_adapters():
    with pytest.raises(ConfigError, match="student.base_quantization is 'nf4'.*student.lora is"):
        StudentConfig(8, None, None, base_quantization="nf4")
