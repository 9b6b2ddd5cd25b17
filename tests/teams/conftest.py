"""A small world without JAX: a chat of characters, and a model whose words are a hash."""

import hashlib
import re
from types import SimpleNamespace

import pytest

from arkjax.sampling.params import Generation
from arkjax.tasks.problems import Grade, Problem

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

    def play_here(spec, problems, model, store=None, seed=0, **options):
        models = model if isinstance(model, dict) else {"policy": model}
        return play(spec, problems, models, Chat(), Tokenizer(), Grader(), store, seed, **options)

    return SimpleNamespace(
        chat=Chat(),
        tokenizer=Tokenizer(),
        grader=Grader(),
        Model=Model,
        problems=problems,
        play=play_here,
        text_of=text_of,
        end=END,
    )
