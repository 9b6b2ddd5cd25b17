"""Runs whose team is played through a server: the same words, records and report as without."""

import contextlib
import copy
import http.client
import http.server
import json
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import arkjax
from arkjax import cli, config
from arkjax.errors import ConfigError
from arkjax.run_config import RunConfig
from arkjax.sampling.remote import RemoteConfig, RemoteGenerator
from arkjax.storage import content_hash
from arkjax.teams import library
from arkjax.text.tokenizer import Tokenizer
from arkjax.trajectories.store import CallStore, read_run_info

KEY = "sk-far.away-7"
PROBLEMS, EVALUATED = 60, 6
_CONFIG = """
from ml_collections import ConfigDict
from arkjax import config

def get_config(arg=""):
    c = config.load("tiny")
    c.name = "far"
    c.sample.problems = {problems}
    c.students = ("student_da", "control_no_debate")
    c.student.train.steps = 4
    c.evaluation.limit = {evaluated}
    far = dict(url={url!r}, model="far-model", api_key_env="FAR_KEY", retries=0, max_concurrency=16)
    # As the config says them, to be changed on the command line.
    far |= dict(weights="", max_context=0)
    c.remotes = ConfigDict({{"far": far}})
    c.policy = "far"
    return c
"""
_MIXED = """
from arkjax.teams import library

def get_config(arg=""):
    c = library.load_config("debate:rounds=2,max_tokens=30")
    for agent in c.agents[:2]:
        agent["model"] = "far"
    c.agents[2]["model"] = "base"
    return c
"""


class Relay(http.server.ThreadingHTTPServer):
    """Hands what it is asked on to a server and its answers back.

    Attributes:
      asked: prompt and seed of every completion that was asked for.
      most: completions that are handed on; further ones wait until nobody does any more.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int):
        self.port, self.asked, self.most = port, [], 10**9
        self.lock, self.leaving = threading.Lock(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """Clients may leave."""

    def start_again(self, most: int = 10**9) -> None:
        """Forget what was asked; those that waited are not handed on."""
        self.leaving.set()
        time.sleep(0.1)
        self.asked, self.most, self.leaving = [], most, threading.Event()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.hand_on(None)

    def do_POST(self):
        relay = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        read = json.loads(body)
        if isinstance(read["prompt"], list):
            with relay.lock:
                relay.asked.append((tuple(read["prompt"]), read["seed"]))
                waits, leaving = len(relay.asked) > relay.most, relay.leaving
            if waits:
                leaving.wait(120)
                self.close_connection = True
                return
        self.hand_on(body)

    def hand_on(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        with contextlib.closing(connection):
            kept = ("Content-Type", "Authorization")
            headers = {name: self.headers[name] for name in kept if self.headers[name]}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            data = response.read()
        self.send_response(response.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def command(arkjax_command):
    """The command line, with the key in its environment."""
    pytest.importorskip("aiohttp")
    made = copy.copy(arkjax_command)
    made.environment = made.environment | {"FAR_KEY": KEY, "ARKJAX_API_KEY": KEY}
    return made


@pytest.fixture(scope="module")
def relay(tiny_run, command):
    """Before `arkjax serve` of the base model of `tiny_run`, in a process of its own."""
    model = tiny_run / "seed-0" / "base" / "model"
    settings = ("--port", 0, "--model-name", "far-model", "--slots", 16, "--grace", 1)
    process = command.start("-m", "arkjax", "serve", model, *settings)
    try:
        said = process.stdout.readline()
        assert said.startswith("far-model is served at http://127.0.0.1:"), process.communicate()
        relay = Relay(int(said.split(":")[-1].split("/")[0]))
        yield relay
        relay.start_again()
        relay.shutdown()
        relay.server_close()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def far(relay, tiny_run, tmp_path_factory):
    """A function that makes a run directory with a finished base; and the config of such a run."""
    folder = tmp_path_factory.mktemp("far")
    path = folder / "far.py"
    path.write_text(_CONFIG.format(url=relay.url, problems=PROBLEMS, evaluated=EVALUATED))
    (folder / "mixed.py").write_text(_MIXED)

    def workdir(name: str) -> Path:
        made = folder / name
        (made / "seed-0").mkdir(parents=True)
        shutil.copy(tiny_run / "lock", made)
        shutil.copytree(tiny_run / "seed-0" / "base", made / "seed-0" / "base")
        return made

    return workdir, path


def by_place(store: Path) -> dict[tuple, object]:
    """Recorded calls by what does not depend on who made them."""
    calls = CallStore(store).load()
    placed = {(c.problem_id, c.stage, c.round, c.agent, c.sample): c for c in calls}
    assert calls and len(placed) == len(calls)
    return placed


def assert_same_words(ours: Path, theirs: Path) -> None:
    """All calls are there in the other record too, with the same tokens."""
    other = by_place(theirs)
    for place, call in by_place(ours).items():
        twin = other[place]
        for name in ("prompt_ids", "gen_ids", "seed", "finish_reason", "text", "correct"):
            assert getattr(call, name) == getattr(twin, name), (place, name)
        # float32 in batches of other shapes.
        np.testing.assert_allclose(call.logprobs, twin.logprobs, atol=1e-4)
        np.testing.assert_allclose(call.sampling_logprobs, twin.sampling_logprobs, atol=1e-4)


def asked_of(store: Path) -> set[tuple]:
    return {(call.prompt_ids, call.seed) for call in CallStore(store).load()}


def wait_until_it_waits(relay: Relay, process) -> None:
    deadline = time.monotonic() + 120
    while len(relay.asked) <= relay.most + 2:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run never got so far"
        time.sleep(0.05)
    time.sleep(0.5)


@pytest.mark.slow
def test_a_run_through_a_server_killed_twice_says_the_same_words(relay, far, tiny_run, command):
    """Every token and log-probability is that of the run that has the same model at hand.

    Interrupted once and killed once, it asks for nothing again that was recorded.
    """
    workdir, path = far[0]("whole"), far[1]
    sampled, run = workdir / "seed-0" / "sample", ("run", "--config", path, "--workdir", workdir)
    relay.start_again(most=30)
    process = command.start("-m", "arkjax", *run)
    wait_until_it_waits(relay, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=180)
    assert process.returncode == 130 and "the same command goes on from here" in error
    kept = asked_of(sampled / "team")
    assert len(kept) == 30

    whole_team = PROBLEMS * 8
    relay.start_again(most=whole_team - len(kept) + 10)
    process = command.start("-m", "arkjax", *run)
    wait_until_it_waits(relay, process)
    process.kill()
    process.communicate()
    assert not kept & set(relay.asked)
    kept = asked_of(sampled / "team")
    assert len(kept) == whole_team

    relay.start_again()
    done = command(*run)
    assert done.returncode == 0, done.stderr
    assert "remote far: asking http" in done.stderr and "calls, " in done.stderr
    assert not kept & set(relay.asked)
    for source in ("team", "single_agent", "roles"):
        assert_same_words(sampled / source, tiny_run / "seed-0" / "sample" / source)
    evaluated = Path("seed-0", "evaluate", "test")
    for system in ("team", "role_vote", "base"):
        assert_same_words(workdir / evaluated / system, tiny_run / evaluated / system)

    # Who spoke is known by a hash; the key is nowhere.
    made = RunConfig(**vars(config.build(RunConfig, config.load(str(path)))))
    identity = read_run_info(sampled)["model"]
    assert identity.startswith("remote-")
    speakers = {call.model for call in CallStore(sampled / "team")}
    assert speakers == {identity}
    speakers = {call.model for call in CallStore(workdir / evaluated / "base")}
    assert len(speakers) == 1 and speakers.pop().startswith("base-")
    for file in workdir.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert f"far-model at {relay.url} played self_consistency, role_vote" in str(report["notes"])
    assert report["config_hash"] == content_hash(made.to_dict())

    # Nobody asks a server of which nothing is needed any more.
    relay.start_again(most=-1)
    again = command(*run)
    assert again.returncode == 0 and "asking" not in again.stderr and not relay.asked
    # The team of another model is another team.
    changed = command(*run, "--config.remotes.far.weights=v2")
    assert changed.returncode == 4 and 'remotes.far: "remote-' in changed.stderr


@pytest.mark.slow
def test_some_agents_are_played_by_a_server_and_some_here(relay, far, tiny_run, command):
    workdir, path = far[0]("mixed"), far[1]
    relay.start_again()
    done = command(
        "sample",
        *("--config", path, "--workdir", workdir),
        *(f"--config.team={path.parent / 'mixed.py'}", "--config.policy=base"),
    )
    assert done.returncode == 0, done.stderr
    sampled = workdir / "seed-0" / "sample"
    assert_same_words(sampled / "team", tiny_run / "seed-0" / "sample" / "team")
    names = [agent.id for agent in library.load("debate").agents]
    for call in CallStore(sampled / "team"):
        kind = "remote-" if call.agent in names[:2] else "base-"
        assert call.model.startswith(kind), call.agent
    assert len(relay.asked) == PROBLEMS * 4
    players = read_run_info(sampled)["players"]
    assert players.keys() == {"far", "base", "policy"} and players["base"] == players["policy"]


@pytest.mark.slow
def test_a_team_in_a_notebook_is_played_by_a_server_too(relay, tiny_run, monkeypatch):
    relay.start_again()
    monkeypatch.setenv("FAR_KEY", KEY)
    tokenizer = Tokenizer(tiny_run / "seed-0" / "base" / "model" / "tokenizer")
    world = config.build(RunConfig, config.load("tiny")).world
    problems = arkjax.problems("embedded_world", "train", limit=PROBLEMS, world=world)[:6]
    team = arkjax.teams.debate(rounds=2, max_tokens=30)
    remote = RemoteConfig(relay.url, "far-model", api_key_env="FAR_KEY")
    with RemoteGenerator(remote, tokenizer) as model:
        plain = arkjax.sample(team, problems, model, tokenizer)
        named = arkjax.sample(team, problems, {"policy": model, "unused": None}, tokenizer)
        with pytest.raises(ConfigError, match="there is no model 'policy'"):
            arkjax.sample(team, problems, {"polic": model}, tokenizer)
    recorded = by_place(tiny_run / "seed-0" / "sample" / "team")
    for sampled in (plain, named):
        assert len(sampled.calls) == 6 * 8
        for call in sampled.calls:
            place = (call.problem_id, call.stage, call.round, call.agent, call.sample)
            assert call.gen_ids == recorded[place].gen_ids


# --- what stops a run before it begins ------------------------------------------------------------


def refused(capfd, tmp_path, *changes: str, path) -> tuple[int, str]:
    workdir = tmp_path / "run"
    code = cli.main(["run", "--config", str(path), "--workdir", str(workdir), *changes])
    error = capfd.readouterr().err
    assert "Traceback" not in error and error.count("arkjax: error:") == 1
    assert not list(workdir.glob("seed-*"))
    return code, error.split("arkjax: error:")[1]


def test_servers_that_cannot_play_are_found_before_any_work(
    relay, far, capfd, tmp_path, monkeypatch
):
    check = lambda *changes: refused(capfd, tmp_path, *changes, path=far[1])  # noqa: E731
    relay.start_again()
    monkeypatch.delenv("FAR_KEY", raising=False)
    assert check()[0] == 2
    monkeypatch.setenv("FAR_KEY", "sk-wrong.1")
    code, error = check()
    assert code == 2 and "status 401" in error and "put a valid key into FAR_KEY" in error
    code, error = check("--config.remotes.far.model=near")
    assert code == 2
    monkeypatch.setenv("FAR_KEY", KEY)
    code, error = check("--config.remotes.far.model=near")
    assert code == 2 and "no model 'near', but ['far-model']" in error
    assert "set config.remotes.far.model to its name" in error
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, error = check(f"--config.remotes.far.url=http://127.0.0.1:{port}/v1")
    assert code == 3 and "gave no answer in 1 attempts" in error
    other = Path(__file__).parent / "golden" / "chat" / "qwen"
    code, error = check(f"--config.tokenizer={other}")
    assert code == 2 and "has a model with another tokenizer" in error
    # The server's own limit, not that of the engine here.
    code, error = check("--config.team=debate:rounds=2,max_tokens=60")
    assert code == 3 and "holds 192" in error
    code, error = check("--config.remotes.far.max_context=90")
    assert code == 3 and "holds 90" in error
    assert not relay.asked


# --- configs --------------------------------------------------------------------------------------


def build(**changes) -> RunConfig:
    c = config.load("tiny")
    c.students = ("student_da",)
    far = {"url": "http://127.0.0.1:1/v1", "model": "m", **changes.pop("remote", {})}
    c.remotes = {"far": far}
    for name, value in changes.items():
        setattr(c, name, value)
    return config.build(RunConfig, c)


@pytest.mark.fast
def test_configs_that_cannot_be_meant():
    with pytest.raises(ConfigError, match=r"policy is 'fra' \(did you mean 'far'\?\)"):
        build(policy="fra")
    with pytest.raises(ConfigError, match="config.remotes.far: remote.url must be http"):
        build(remote={"url": "localhost:8000"})
    with pytest.raises(ConfigError, match="unknown field config.remotes.far.api_key"):
        build(remote={"api_key": "sk-1"})
    with pytest.raises(ConfigError, match="config.remotes.base: this name is taken"):
        build(remotes={"base": {"url": "http://127.0.0.1:1/v1", "model": "m"}})
    team, single = library.load("debate"), library.load("vanilla")
    learned = build(policy="far", students=("student_da", "student_logit"))
    with pytest.raises(ConfigError, match="student_logit is held to .* and not 'far'"):
        learned.check_players(team, single)
    build(students=("student_logit",)).check_players(team, single)
    asking = {"attribution": {"kinds": ("flips", "influence")}}
    synthesis = {"max_traces": 1, "min_agreeing": 1, "prefer_corrective": True, **asking}
    asked = build(policy="far", synthesis=synthesis)
    with pytest.raises(ConfigError, match="attribution.kinds is .* which 'far' does not give"):
        asked.check_players(team, single)
    build(synthesis=synthesis).check_players(team, single)
    named = library.load_config("vanilla")
    named.agents[0]["model"] = "far"
    with pytest.raises(ConfigError, match="single: an agent of it names the model 'far'"):
        build().check_players(team, library.TeamSpec.from_config(named))
    named.agents[0]["model"] = "fra"
    with pytest.raises(ConfigError, match="there is no model 'fra'; did you mean 'far'"):
        build().players(library.TeamSpec.from_config(named), "base")


@pytest.mark.fast
def test_configs_without_remotes_have_the_hash_that_they_always_had():
    """Reports that were made before there were remotes name these."""
    c = config.load("tiny")
    known = content_hash(config.build(RunConfig, c).to_dict())
    assert not {"remotes", "policy"} & config.build(RunConfig, c).to_dict().keys()
    with c.unlocked():
        del c.remotes, c.policy
    assert content_hash(config.build(RunConfig, c).to_dict()) == known
    assert content_hash(build().to_dict()) != known


@pytest.mark.fast
@pytest.mark.parametrize(
    "change", ["attribution.kinds=('influence',)", "attribution.problems=3", "weights=corrected"]
)
def test_attribution_is_named_in_a_config_only_where_it_is_set(change):
    c = config.load("tiny")
    known = config.build(RunConfig, c).to_dict()
    assert not {"attribution", "prefer", "weights"} & known["synthesis"].keys()
    with c.unlocked():
        for name in ("attribution", "prefer", "weights"):
            del c.synthesis[name]
    assert config.build(RunConfig, c).to_dict() == known
    changed = config.build(RunConfig, config.load("tiny", [f"--config.synthesis.{change}"]))
    assert changed.to_dict() != known


@pytest.mark.fast
def test_a_model_is_known_by_server_name_and_tokenizer():
    def identity(tokenizer="t", **remote):
        return build(remote=remote).remotes["far"].identity(tokenizer)

    same = [
        {"url": "HTTP://127.0.0.1:1/v1/"},
        {"api_key_env": "OTHER", "max_concurrency": 3, "requests_per_minute": 9, "retries": 1},
    ]
    others = [{"url": "http://127.0.0.1:2/v1"}, {"model": "n"}, {"weights": "w"}]
    assert {identity(**changes) for changes in same} == {identity()}
    found = [identity(), identity(tokenizer="u"), *(identity(**changes) for changes in others)]
    assert len(set(found)) == len(found)
    # The same weights behind another server.
    moved = identity(weights="w", url="http://127.0.0.1:2/v1", model="n")
    assert moved == identity(weights="w")
