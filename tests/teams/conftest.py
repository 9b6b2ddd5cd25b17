"""A small world without JAX: a chat of characters, and models whose words are a hash or a script.

`follow` plays a method by a script and tells in a few lines who spoke when, having read whom.
"""

import hashlib
import re
from collections import Counter
from itertools import groupby
from types import SimpleNamespace

import pytest

from arkjax.sampling.params import Generation
from arkjax.tasks.problems import Grade, Problem
from arkjax.trajectories.schema import call_seed

END, QUESTION, TURN = 0, 1, 2


class Tokenizer:
    """One token a character, after the three special ones."""

    def encode(self, text):
        return [ord(char) + 3 for char in text]

    def decode(self, ids):
        return "".join(chr(token - 3) if token > 2 else "#" for token in ids)


class Chat:
    """A marker and the text for the question, a marker and the role for every header."""

    end_id = END
    end_ids = (END,)
    keeps_end = True

    def question(self, text):
        return [QUESTION, *Tokenizer().encode(text)]

    def turn(self, byline, role="", instruction=""):
        parts = [role if role != byline else "", instruction, byline]
        return [TURN, *Tokenizer().encode("\n".join(filter(None, parts)) + ":")]

    def announce(self, byline, role="", instruction=""):
        return [*self.turn(byline, role, instruction), END]

    def message(self, byline):
        return self.turn(byline)

    result = resume = message


class Grader:
    """The answer is the number after the last "so"."""

    def extract(self, text):
        found = re.findall(r"so (\d+)", text)
        return found[-1] if found else None

    def equal(self, a, b):
        return a == b

    def accepts(self, problem, answer):
        return answer == problem.answer

    def grade(self, problem, text):
        answer = self.extract(text)
        return Grade(answer is not None and self.equal(answer, problem.answer), answer, "")


class Model:
    """A generator whose words depend on prompt and seed alone; `delay(request)` steps a call.

    `say(request, draw)` gives the text, where draw is a number that prompt and seed determine; a
    text that ends in "…" is cut off by its limit.
    """

    max_context = 4096

    def __init__(self, say=None, delay=None):
        self.say = say or (lambda request, draw: f"so {draw % 3}")
        self.delay = delay or (lambda request: 1)
        self.queue = []
        self.requests = []
        self.prefixes = set()

    @property
    def pending(self):
        return len(self.queue)

    def submit(self, request):
        self.requests.append(request)
        self.queue.append([self.delay(request), request])

    def step(self):
        for entry in self.queue:
            entry[0] -= 1
        done = [request for left, request in self.queue if left <= 0]
        self.queue = [entry for entry in self.queue if entry[0] > 0]
        return [self._generate(request) for request in done]

    def _generate(self, request):
        draw = hashlib.sha256(repr((request.prompt_ids, request.seed)).encode()).digest()[0]
        text = self.say(request, draw)
        cut = text.endswith("…")
        ids = Tokenizer().encode(text.rstrip("…")) + ([] if cut else [END])
        prefix = request.prompt_ids[: request.prefix_len]
        cached = request.prefix_len if prefix in self.prefixes else 0
        self.prefixes.add(prefix)
        return Generation(
            request_id=request.id,
            ids=tuple(ids),
            logprobs=(-0.5,) * len(ids),
            sampling_logprobs=(-0.25,) * len(ids),
            finish_reason="length" if cut else "stop",
            cached_len=cached,
            seconds=0.5,
        )


def text_of(request):
    """The prompt of a request as text, special tokens as "#"."""
    return Tokenizer().decode(request.prompt_ids)


@pytest.fixture
def world():
    """Chat, tokenizer, grader and `Model` of the small world, with problems and `play` in it."""
    from arkjax.teams import play

    def problems(n):
        return [Problem(f"p{i}", f"what is {i}", str(i % 3), "toy", "d") for i in range(n)]

    chat = Chat()

    def play_here(spec, problems, model, store=None, seed=0, **options):
        models = model if isinstance(model, dict) else {"policy": model}
        return play(spec, problems, models, chat, Tokenizer(), Grader(), store, seed, **options)

    return SimpleNamespace(
        chat=chat,
        tokenizer=Tokenizer(),
        grader=Grader(),
        Model=Model,
        problems=problems,
        play=play_here,
        text_of=text_of,
        end=END,
    )


# --- following a method ---------------------------------------------------------------------------


class Actors(Model):
    """Speaks by a script: `words` of "agent@round/sample", "agent@round", "agent" or the stage.

    Who is asked is known by the seed, which nobody else has.
    """

    max_context = 10**6

    def __init__(self, spec, problem, words):
        super().__init__(self.recite)
        self.words = words
        self.places = {}
        rounds = range(sum(1 for _ in spec.unrolled(longest=True)))
        for stage in spec.stages:
            for name in spec.select(stage.speakers):
                # More than any method asks of one agent in one round.
                samples = range(64)
                for round_, sample in ((r, s) for r in rounds for s in samples):
                    seed = call_seed(0, problem.id, name, stage.seed_key, round_, sample)
                    self.places[seed] = (name, round_, sample, stage.name)

    def recite(self, request, draw):
        name, round_, sample, stage = self.places[request.seed]
        for key in (f"{name}@{round_}/{sample}", f"{name}@{round_}", name, stage):
            if key in self.words:
                return self.words[key]
        return "so 1"


def told(debate):
    """A debate in lines "STAGE ROUND: SPEAKERS < WHAT THEY HAVE READ", and how it ended.

    A message is called "author@round", with "/sample" where its author spoke several times in that
    round. Speakers of a stage who have read the same stand in one line. The last line tells the
    answer, the number of generations, and what ended the last repeat early.
    """
    counts = Counter((call.agent, call.round) for call in debate.calls)
    sample = {c.call_id: f"/{c.sample}" * (counts[c.agent, c.round] > 1) for c in debate.calls}
    names = {c.call_id: f"{c.agent}@{c.round}{sample[c.call_id]}" for c in debate.calls}
    lines = []
    for (round_, stage, parents), calls in groupby(
        debate.calls, key=lambda call: (call.round, call.stage, call.parents)
    ):
        speakers = " ".join(call.agent + sample[call.call_id] for call in calls)
        read = "".join(f" {names[parent]}" for parent in parents)
        lines.append(f"{stage} {round_}: {speakers}" + f" <{read}" * bool(parents))
    stopped = f", stopped by {debate.stopped}" * bool(debate.stopped)
    return "\n".join([*lines, f"= {debate.answer}, {debate.cost.calls} calls{stopped}"])


def expected_prompt(spec, question, call, calls):
    """What a speaker should read: question, whole messages under bylines, then its own orders."""
    stage, agent = spec.stage(call.stage), spec.agent(call.agent)
    shown = "".join(_message(spec, stage, calls[parent]) for parent in call.parents)
    role = agent.role
    for said in sorted(calls.values(), key=lambda said: said.round):
        for field in agent.role_from:
            place, _, name = field.rpartition(".")
            if said.round < call.round and said.stage == place and name in said.parsed:
                role = said.parsed[name]
    orders = [role if role != agent.name else "", stage.instruction, agent.name]
    return f"#{question}{shown}#" + "\n".join(filter(None, orders)) + ":"


def _message(spec, stage, said):
    author = spec.agent(said.agent)
    byline = f"agent {spec.ids.index(said.agent) + 1}" if stage.view.anonymous else author.name
    return f"#{author.tool or byline}:{said.text}#"


@pytest.fixture
def follow(world):
    """Plays a team by a script: `follow("debate:rounds=3", {"watchman": "so 2"})`.

    Gives the debate, its `told`, the team, and of each message's name its prompt as text. Every
    prompt is compared with what its reader should see. The gold answer is 1.
    """
    from arkjax import teams

    def follow_here(name, words=None, **meta):
        spec = teams.load(name)
        problem = Problem("p1", "what is 1", "1", "toy", "d", meta)
        models = {model: Actors(spec, problem, words or {}) for model in spec.models}
        (debate,) = world.play(spec, [problem], models)
        calls = {call.call_id: call for call in debate.calls}
        prompts = {}
        for call in (call for call in debate.calls if not call.is_action):
            prompt = Tokenizer().decode(call.prompt_ids)
            assert prompt == expected_prompt(spec, problem.question, call, calls)
            prompts[f"{call.agent}@{call.round}/{call.sample}"] = prompt
            if not call.sample:
                prompts[f"{call.agent}@{call.round}"] = prompt
        return SimpleNamespace(debate=debate, told=told(debate), spec=spec, prompts=prompts)

    return follow_here
