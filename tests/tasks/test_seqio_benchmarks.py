"""Published data sets as SeqIO tasks and mixtures: the same problems and grades as everywhere."""

import collections
import itertools
from pathlib import Path

import numpy as np
import pytest

seqio = pytest.importorskip(
    "seqio", reason="SeqIO comes with the extras `tasks` and `dev`", exc_type=ImportError
)

from arkjax.tasks import seqio_benchmarks  # noqa: E402
from arkjax.tasks.benchmarks.table import BENCHMARKS  # noqa: E402
from arkjax.tasks.registry import get_task  # noqa: E402
from arkjax.tasks.seqio_tasks import VOCABULARY  # noqa: E402

FIXTURES = Path(__file__).parent / "fixtures"
BYTES = seqio.ByteVocabulary()
THERE = [
    (name, split)
    for name, folder, split in [
        ("gsm8k", "gsm8k", "test"),
        ("math", "math", "test"),
        ("math_500", "math_500", "test"),
        ("metamath_qa", "metamath_qa", "train"),
        ("svamp", "svamp", "test"),
        ("aqua", "aqua", "test"),
        ("medmcqa", "medmcqa", "train"),
        ("hotpotqa", "hotpotqa", "validation"),
        ("qasper", "qasper", "validation"),
        ("qmsum", "qmsum", "validation"),
        ("truthfulqa", "truthfulqa", "validation"),
        ("truthfulqa_mc", "truthfulqa", "validation"),
    ]
]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setenv("ARKJAX_DATASETS", str(FIXTURES))


def rows(task, split, count=None):
    dataset = seqio.get_mixture_or_task(task).get_dataset(None, split, shuffle=False)
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_every_data_set_is_a_task():
    assert {name for name, _ in THERE} == set(BENCHMARKS)
    for name, benchmark in BENCHMARKS.items():
        task = seqio.get_mixture_or_task(f"arkjax_{name}")
        assert tuple(task.splits) == benchmark.splits


@pytest.mark.parametrize(("name", "split"), THERE)
def test_rows_are_the_problems_and_metrics_the_graders(name, split):
    task = seqio.get_mixture_or_task(f"arkjax_{name}")
    problems, found = get_task(name).load(split), rows(f"arkjax_{name}", split)
    targets = [task.postprocess_fn("", example=row, is_target=True) for row in found]
    assert targets == problems
    for problem, row in zip(problems, found, strict=True):
        assert row["inputs"].tolist() == VOCABULARY.encode(problem.question)
        assert row["targets"].tolist() == [*VOCABULARY.encode(problem.answer), VOCABULARY.eos_id]
    (metric,) = task.metric_fns
    right = metric(targets, [f"Answer: {problem.answer}" for problem in problems])
    assert right["accuracy"] == 1.0
    assert metric(targets, ["zebra crossing"] * len(problems))["accuracy"] == 0.0


def test_further_figures_of_the_grader_are_metrics():
    (metric,) = seqio.get_mixture_or_task("arkjax_hotpotqa").metric_fns
    problems = get_task("hotpotqa").load("validation")
    found = metric(problems, ["Answer: no", "Answer: the Ilse valley"])
    assert found["accuracy"] == 0.5 and found["em"] == 0.5 and 0.5 < found["f1"] < 1


def test_a_task_with_a_vocabulary_source_and_targets_of_ones_own(tmp_path):
    (tmp_path / "train.jsonl").write_text((FIXTURES / "gsm8k/train.jsonl").read_text())
    seqio_benchmarks.add_task(
        "gsm8k", BYTES, source=str(tmp_path), name="bytes_gsm8k", targets="solution"
    )
    row = rows("bytes_gsm8k", "train", 1)[0]
    assert BYTES.decode(row["targets"].tolist()) == "She has 3 * 12 = 36 pens.\n\nAnswer: 36"
    assert BYTES.decode(row["inputs"].tolist()).startswith("Ida has 3 boxes with 12 pens each.")
    with pytest.raises(ValueError, match="bytes_gsm8k"):
        seqio_benchmarks.add_task("gsm8k", BYTES, name="bytes_gsm8k")


def test_mixtures_draw_at_their_rates():
    seqio.MixtureRegistry.add("sums", [("arkjax_gsm8k", 3.0), ("arkjax_math", 1.0)])
    mixture = seqio.get_mixture_or_task("sums")
    dataset = mixture.get_dataset(None, "test", shuffle=False, num_epochs=None, seed=0)
    drawn = collections.Counter(
        row["inputs"].tobytes() for row in itertools.islice(dataset.as_numpy_iterator(), 2000)
    )
    of_math = {np.array(row["inputs"]).tobytes() for row in rows("arkjax_math", "test")}
    share = sum(count for inputs, count in drawn.items() if inputs in of_math) / 2000
    assert share == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("name", seqio_benchmarks.MIXTURES)
def test_shipped_mixtures_have_the_rates_that_are_said(name):
    mixture = seqio.get_mixture_or_task(name)
    rates = {task.name.removeprefix("arkjax_"): mixture.get_rate(task) for task in mixture.tasks}
    assert rates == seqio_benchmarks.MIXTURES[name]


def test_feature_converters_take_a_mixture():
    dataset = seqio.get_dataset(
        "arkjax_mathematics",
        task_feature_lengths={"inputs": 128, "targets": 16},
        dataset_split="test",
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        shuffle=False,
        num_epochs=1,
    )
    row = next(dataset.as_numpy_iterator())
    assert row["encoder_input_tokens"].shape == (128,)
