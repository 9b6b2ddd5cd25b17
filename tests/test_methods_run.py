"""Every shipped method is played by the embedded model, here and through a server."""

import shutil
from pathlib import Path

import pytest

from arkjax import cli, config
from arkjax.models.config import ModelConfig
from arkjax.models.huggingface.writing import export_hf
from arkjax.models.placement import load_model
from arkjax.models.transformer import Transformer
from arkjax.models.weights import init_weights
from arkjax.players import Players
from arkjax.run_config import RunConfig
from arkjax.sampling.engine import Engine, EngineConfig
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator
from arkjax.sharding import ShardingRules, make_mesh
from arkjax.shipped import shipped_path
from arkjax.tasks.registry import get_task
from arkjax.teams import library
from arkjax.teams.runner import play
from arkjax.text.chat import BylineChat
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.schema import TEMPLATE
from arkjax.trajectories.store import CallStore, read_run_info

METHODS = sorted(path.stem for path in shipped_path("configs/teams").glob("*.py"))
# One layer that is hardly trained says nonsense, as any method must be able to bear.
SMALL = (
    "--config.base.train.steps=2",
    "--config.base.train.batch_rows=8",
    "--config.sample.problems=2",
    "--config.model.num_layers=1",
    # Few programs to compile.
    "--config.engine.length_classes=(512,)",
    "--config.engine.chunk=128",
    "--config.engine.slots=16",
    "--config.engine.prefixes=16",
    "--config.engine.admit_rows=4",
    "--config.engine.prefix_rows=4",
)


def stage(name: str, workdir: Path, *changes: str) -> int:
    arguments = ("--config", "configs/quickstart.py", "--workdir", str(workdir))
    return cli.main([name, *arguments, *SMALL, *changes])


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run whose base model is finished."""
    workdir = tmp_path_factory.mktemp("methods") / "base"
    assert stage("base", workdir) == 0
    return workdir


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_sampled_by_its_name(name, base, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(base, workdir)
    assert stage("sample", workdir, f"--config.team={name}") == 0
    sampled = workdir / "seed-0" / "sample"
    calls = CallStore(sampled / "team").load()
    team = library.load(name)
    assert {call.problem_id for call in calls} == {"train-0-00000", "train-0-00001"}
    assert {call.system for call in calls} == {team.name}
    assert {call.agent for call in calls} <= set(team.ids)
    assert read_run_info(sampled)["team_hash"] == team.hash


@pytest.fixture(scope="module")
def engine(base):
    model = load_model(base / "seed-0" / "base" / "model", make_mesh(), ShardingRules())
    sizes = EngineConfig(
        length_classes=(512,),
        slots=16,
        prefixes=16,
        admit_rows=4,
        prefix_rows=4,
        chunk=128,
        block_steps=16,
        max_stop_ids=1,
    )
    return Engine(model, sizes, Tokenizer(shipped_path("data/embedded_world/tokenizer.model")))


@pytest.fixture(scope="module")
def served(base, arkjax_command):
    """The base model behind `arkjax serve`, in a process of its own."""
    pytest.importorskip("aiohttp")
    model = base / "seed-0" / "base" / "model"
    settings = ("--port", 0, "--model-name", "small", "--slots", 16, "--grace", 1)
    process = arkjax_command.start("-m", "arkjax", "serve", model, *settings)
    tokenizer = Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
    try:
        said = process.stdout.readline()
        assert said.startswith("small is served at http://127.0.0.1:"), process.communicate()
        url = said.split(" at ")[1].split()[0]
        with RemoteGenerator(RemoteConfig(url, "small"), tokenizer) as remote:
            yield remote
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_the_same_words_through_a_server(name, engine, served):
    tokenizer = Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
    task, chat = get_task("embedded_world"), BylineChat(tokenizer)
    # The seed is a name's own, so that methods do not share their openings.
    problems, seed = task.load("test", 1), METHODS.index(name)

    def debate(model):
        team = library.load(f"{name}:max_tokens=24")
        [made] = play(team, problems, {"policy": model}, chat, tokenizer, task.grader, None, seed)
        return [(call.stage, call.round, call.agent, call.gen_ids) for call in made.calls]

    assert debate(served) == debate(engine)


# --- several models -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Path:
    """A checkpoint of another family: its own tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("stranger") / "qwen"
    shape = ModelConfig(
        vocab_size=640,
        d_model=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        d_ff=64,
        qk_norm=True,
        max_context=512,
    )
    export_hf(Transformer(shape, init_weights(shape, 3)), folder)
    golden = Path(__file__).parent / "golden" / "chat"
    for file in (golden / "qwen").iterdir():
        shutil.copy(file, folder)
    shutil.copy(golden / "templates" / "qwen3.jinja", folder / "chat_template.jinja")
    return folder


def test_models_with_different_tokenizers_take_turns_in_one_team(base, stranger, tmp_path, capfd):
    """Half of the proposers are of another family; they read each other's words, not their ids."""
    workdir, path = tmp_path / "run", tmp_path / "mixed.py"
    shutil.copytree(base, workdir)
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "from arkjax import config\n"
        "def get_config(arg=''):\n"
        "    c = config.load('quickstart')\n"
        f"    c.models = ConfigDict({{'qwen': {{'checkpoint': {str(stranger)!r}}}}})\n"
        "    c.students = ('student_da',)\n"
        "    c.team = 'mixture_of_agents:models=base+qwen,max_tokens=16'\n"
        "    return c\n"
    )
    arguments = ("sample", "--config", str(path), "--workdir", str(workdir), *SMALL)
    assert cli.main(list(arguments)) == 0
    error = capfd.readouterr().err
    assert "model qwen: " in error and "it takes its turn" in error
    sampled = workdir / "seed-0" / "sample"
    calls = CallStore(sampled / "team").load()
    by_id = {call.call_id: call for call in calls}
    names = [agent.id for agent in library.load("mixture_of_agents").agents][:4]
    for call in calls:
        kind = "qwen-" if call.agent in names[1::2] else "base-"
        assert call.model.startswith(kind)
        if call.stage == "propose":
            continue
        copied = {source for source, _, _ in call.prompt_segments if source != TEMPLATE}
        own = {parent for parent in call.parents if by_id[parent].model == call.model}
        # Ids are copied from one's own kind; what the others said is encoded anew.
        assert copied == {parent for parent in own if by_id[parent].gen_ids}
        assert len(own) == 2 and len(call.parents) == 4
    tokenizer = Tokenizer(stranger)
    prompt = next(c for c in calls if c.stage == "refine" and c.agent == names[1]).prompt_ids
    text = "".join(filter(None, map(tokenizer.token, prompt)))
    assert text.startswith("<|im_start|>user") and "<|im_start|>assistant" in text
    info = read_run_info(sampled)
    assert info["players"].keys() == {"policy", "base", "qwen"}
    # What students learn from is in their own tokens.
    made = config.build(RunConfig, config.load(str(path)))
    own = Tokenizer(shipped_path("data/embedded_world/tokenizer.model"))
    players = Players(made, None, own, BylineChat(own), None, None)
    learned = players.in_own_tokens(calls)
    assert {call.agent for call in calls} - {call.agent for call in learned} == set(names[1::2])
    assert all(call.model.startswith("base-") for call in learned)
    # Where they shall learn from all, strangers' words are encoded anew, and nobody else's.
    c = config.load(str(path), ["--config.synthesis.foreign=reencode"])
    players = Players(config.build(RunConfig, c), None, own, BylineChat(own), None, None)
    assert players.is_foreign("qwen") and not players.is_foreign("base")
    again = {call.call_id: call for call in players.in_own_tokens(calls)}
    for call in calls:
        if call.model not in players.foreign:
            assert again[call.call_id] is call
        elif call.call_id in again:
            assert own.decode(again[call.call_id].gen_ids) == call.text
    # A team that names a model which is not there is refused before anything is done.
    assert cli.main([*arguments, "--config.team=mixture_of_agents:models=base+qwem"]) == 2
    assert "there is no model 'qwem'; did you mean 'qwen'" in capfd.readouterr().err


@pytest.mark.fast
def test_configs_of_models_that_cannot_be_meant():
    from arkjax.errors import ConfigError

    c = config.load("tiny")
    known = config.build(RunConfig, c).to_dict()
    assert not {"models", "models_at_once", "chat", "chat_variables"} & known.keys()
    for name, change, message in (
        ("base", {}, "config.models.base: this name is taken"),
        ("m", {"policy": "n"}, "config.policy is 'n'"),
        ("m", {"models_at_once": 0}, "at least one model must be there"),
        ("m", {"chat": "html"}, "config.chat"),
    ):
        with c.unlocked():
            c.models = {name: {"checkpoint": "x"}}
            c.update({"policy": "base", "models_at_once": 1, "chat": "auto"} | change)
        with pytest.raises(ConfigError, match=message):
            config.build(RunConfig, c)
