"""Which files hold a split, wherever they lie."""

import sys
import types

import pytest

from arkjax.errors import ConfigError, DataError
from arkjax.tasks.benchmarks import Benchmark, Draft, Layout, places
from arkjax.tasks.benchmarks.table import BENCHMARKS
from arkjax.tasks.world_grader import WorldGrader

pytestmark = pytest.mark.fast


def read(record):
    yield Draft(record.text("q"), record.number("a"))


SET = Benchmark("sums", read, WorldGrader(), layout=Layout("sums", "somebody/sums"))


def put(folder, name, *numbers):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"q": "number {n}", "a": {n}}}\n' for n in numbers))
    return path


def answers(split, **options):
    return [problem.answer for problem in SET.load(split, **options)]


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["test.jsonl", "train.jsonl", "README.md"], "test", ["test.jsonl"]),
        (["dev.json", "test.json"], "validation", ["dev.json"]),
        (["a_val.jsonl", "b_val.jsonl", "val.txt"], "validation", ["a_val.jsonl", "b_val.jsonl"]),
        (["test/x/10.json", "test/x/2.json", "train/x/1.json"], "test",
         ["test/x/2.json", "test/x/10.json"]),
        (["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"], "train",
         ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        (["train.jsonl", "data/train-00000-of-00001.parquet"], "train",
         ["data/train-00000-of-00001.parquet"]),
        (["test.jsonl", "test.jsonl.gz"], "test", ["test.jsonl"]),
        (["contest.jsonl", "latest.jsonl"], "test", []),
    ],
)  # fmt: skip
def test_names_say_which_split_a_file_holds(names, split, expected):
    assert places.chosen(Layout("x"), split, names) == expected


@pytest.mark.parametrize(
    ("task", "split", "taken", "left"),
    [
        ("gsm8k", "test", "main/test-0.parquet", "socratic/test-0.parquet"),
        ("gsm8k", "train", "train.jsonl", "train_socratic.jsonl"),
        ("aqua", "validation", "raw/validation-0.parquet", "tokenized/validation-0.parquet"),
        ("hotpotqa", "train", "distractor/train/0000.parquet", "fullwiki/train/0000.parquet"),
        ("truthfulqa", "validation", "generation/validation-0.parquet",
         "multiple_choice/validation-0.parquet"),
        ("truthfulqa_mc", "validation", "multiple_choice/validation-0.parquet",
         "generation/validation-0.parquet"),
        ("truthfulqa", "validation", "TruthfulQA.csv", "mc_task.json"),
        ("truthfulqa_mc", "validation", "mc_task.json", "TruthfulQA.csv"),
        ("qmsum", "test", "data/Product/jsonl/test.jsonl", "data/ALL/jsonl/test.jsonl"),
        ("svamp", "test", "SVAMP.json", "cv_asdiv-a.json"),
    ],
)  # fmt: skip
def test_published_repositories_are_told_apart(task, split, taken, left):
    layout = BENCHMARKS[task].layout
    assert places.chosen(layout, split, [left, taken]) == [taken]


def test_all_of_svamp_is_read_where_it_is_cut_in_two():
    layout = BENCHMARKS["svamp"].layout
    assert places.chosen(layout, "test", ["test.json", "train.json"]) == ["train.json", "test.json"]


def test_a_missing_shard_is_no_shorter_split():
    names = ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"]
    with pytest.raises(DataError, match=r"train-\*\.parquet: file 1 of 3 is missing \(1 in all\)"):
        places.chosen(Layout("x"), "train", names)


def test_files_and_folders(tmp_path):
    file = put(tmp_path, "sums/test.jsonl", 3, 4, 5)
    put(tmp_path, "sums/more/dev.jsonl", 6)
    assert answers("test", source=str(file)) == ["3", "4", "5"]
    assert answers("test", source=str(tmp_path / "sums")) == ["3", "4", "5"]
    assert answers("validation", source=str(tmp_path / "sums")) == ["6"]
    anything = put(tmp_path, "mine.jsonl", 9)
    assert answers("train", source=str(anything)) == answers("test", source=str(anything)) == ["9"]
    with pytest.raises(DataError, match=r"by its name of split 'test', and 'train' is asked for"):
        answers("train", source=str(file))
    with pytest.raises(
        DataError, match=r"no data file of split 'train'.*there are more/dev\.jsonl"
    ):
        answers("train", source=str(tmp_path / "sums"))
    with pytest.raises(DataError, match="no such file or folder; of the Hub it would be hf:"):
        answers("train", source=str(tmp_path / "nowhere"))


def test_the_variable_names_a_folder_of_data_sets(tmp_path, monkeypatch):
    put(tmp_path, "sums/test.jsonl", 7)
    monkeypatch.setenv("ARKJAX_DATASETS", str(tmp_path))
    assert answers("test") == ["7"]
    with pytest.raises(DataError, match="no data file of split 'train'"):
        answers("train")


class Hub(types.ModuleType):
    """A Hub with one repository, as far as it is used; `offline` has what was fetched before."""

    def __init__(self, folder, offline=False):
        super().__init__("huggingface_hub")
        self.folder, self.offline, self.fetched = folder, offline, []
        self.endpoint = "https://hub.invalid"

    def HfApi(self):
        return self

    def get_session(self):
        return self

    def head(self, url, *, timeout):
        assert url == "https://hub.invalid"

    def list_repo_files(self, repo, *, repo_type, revision):
        assert (repo, repo_type) == ("somebody/sums", "dataset")
        if self.offline:
            raise ConnectionError("no network\nat all")
        return [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*.*")]

    def hf_hub_download(self, repo, file, *, repo_type, revision):
        self.fetched.append((file, revision))
        return str(self.folder / file)

    def snapshot_download(self, repo, *, local_files_only, repo_type, revision):
        if not self.folder.exists():
            raise FileNotFoundError
        return str(self.folder)


def test_the_hub_gives_only_the_files_that_are_needed(tmp_path, monkeypatch):
    for number in range(3):
        put(tmp_path, f"data/train-0000{number}-of-00003.jsonl", number, number + 10)
    put(tmp_path, "data/test-00000-of-00001.jsonl", 20)
    hub = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.delenv("ARKJAX_DATASETS", raising=False)
    assert answers("train", limit=2) == ["0", "10"]
    assert hub.fetched == [("data/train-00000-of-00003.jsonl", None)]
    assert answers("train", source="hf:somebody/sums@v1.0") == ["0", "10", "1", "11", "2", "12"]
    assert hub.fetched[-1] == ("data/train-00002-of-00003.jsonl", "v1.0")
    with pytest.raises(DataError, match="hf:somebody/sums has no data file of split 'validation'"):
        answers("validation", source="hf:somebody/sums")
    with pytest.raises(DataError, match="names no data set: expected hf:owner/name"):
        answers("train", source="hf:sums")


def test_without_a_network_what_was_fetched_before_is_taken(tmp_path, monkeypatch):
    put(tmp_path, "data/test.jsonl", 20)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path, offline=True))
    assert answers("test", source="hf:somebody/sums") == ["20"]


def test_with_nothing_at_all_the_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("ARKJAX_DATASETS", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "none", offline=True))
    with pytest.raises(DataError) as error:
        answers("test")
    said = str(error.value)
    assert "\n" not in said and "no network" in said and "hf download somebody/sums" in said
    for way in ("--source", "config.source", "hf:owner/name", "ARKJAX_DATASETS"):
        assert way in said
    with pytest.raises(DataError, match="no home on the Hub"):
        BENCHMARKS["qmsum"].load("test")


def test_limits_splits_and_orders(tmp_path):
    path = str(put(tmp_path, "numbers.jsonl", *range(40)))
    with pytest.raises(
        ConfigError, match="no split 'dev' of sums; it is called 'validation' here; known: train"
    ):
        SET.load("dev", source=path)
    with pytest.raises(
        ConfigError, match="41 problems asked of split 'test' of sums, which has 40"
    ):
        SET.load("test", 41, source=path)
    with pytest.raises(ConfigError, match="at least one"):
        SET.load("test", 0, source=path)
    with pytest.raises(DataError, match="has no problems"):
        SET.load("test", source=str(put(tmp_path, "none.jsonl")))
    every = SET.load("test", source=path)
    assert SET.load("test", 7, source=path) == every[:7]
    drawn = SET.load("test", 40, source=path, seed=1)
    assert drawn != every and sorted(p.id for p in drawn) == [p.id for p in every]
    assert SET.load("test", 7, source=path, seed=1) == drawn[:7]
    assert SET.load("test", 40, source=path, seed=2) != drawn


def test_tfds_sets_are_asked_for_by_name(monkeypatch):
    class Builder:
        info = types.SimpleNamespace(splits={"train": 0, "dev": 0})

        def download_and_prepare(self):
            pass

        def as_dataset(self, split):
            return [{"q": b"how many?", "a": len(split)}]

    tfds = types.ModuleType("tensorflow_datasets")
    tfds.builder, tfds.as_numpy = lambda name: Builder(), lambda data: data
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tfds)
    (problem,) = SET.load("validation", source="tfds:sums")
    assert (problem.question, problem.answer) == ("how many?", "3")
    with pytest.raises(DataError, match="tfds:sums has no split 'test': it has train, dev"):
        SET.load("test", source="tfds:sums")
    with pytest.raises(DataError, match="no set of TFDS itself: of the Hub give hf:owner/name"):
        SET.load("test", source="tfds:huggingface:somebody/sums")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match="needs TensorFlow Datasets"):
        SET.load("test", source="tfds:sums")
