"""How questions and turns become tokens."""

import itertools

import pytest

from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world as world
from arkjax.tasks.embedded_sets import SHIPPED_WORLD
from arkjax.tasks.world_documents import make_documents
from arkjax.text.chat import PlainChat
from arkjax.text.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

TOKENIZER = Tokenizer(shipped_path(f"data/{world.NAME}/tokenizer.model"))
CHAT = PlainChat(TOKENIZER)


def transcript(document):
    ids = CHAT.question(document.question)
    for turn in document.turns:
        ids = [*ids, *CHAT.turn(turn.byline), *TOKENIZER.encode(turn.text), CHAT.end_id]
    return ids


def test_the_question_is_closed_and_a_turn_is_open():
    assert CHAT.end_id == TOKENIZER.eos_id
    question = CHAT.question("coins 4 7 , gap 3 8")
    assert question.count(CHAT.end_id) == 1 and question[-1] == CHAT.end_id
    assert TOKENIZER.decode(question) == "question: coins 4 7 , gap 3 8"
    assert CHAT.end_id not in CHAT.turn("surveyor")
    assert TOKENIZER.decode(CHAT.turn("surveyor")) == "surveyor:"


def test_a_transcript_can_be_taken_apart():
    for document in itertools.islice(make_documents(SHIPPED_WORLD, 0), 50):
        ids, messages = transcript(document), []
        while ids:
            end = ids.index(CHAT.end_id)
            messages.append(TOKENIZER.decode(ids[:end]))
            ids = ids[end + 1 :]
        turns = [f"{turn.byline}: {turn.text}" for turn in document.turns]
        assert messages == [f"question: {document.question}", *turns]


def test_all_who_share_a_view_share_its_tokens():
    views = [
        [*CHAT.question("gap 3 8 , peak 6 1"), *CHAT.turn(role)]
        for role in (*world.EXPERTS, world.JUDGE, world.BARE_BYLINE)
    ]
    shared = len(CHAT.question("gap 3 8 , peak 6 1"))
    assert len({tuple(view[:shared]) for view in views}) == 1
    assert len({tuple(view[shared:]) for view in views}) == len(views)


def test_any_role_text_opens_a_turn():
    role = 'You are "Solver #2": think step by step, then answer.'
    assert TOKENIZER.decode(CHAT.turn(role)) == f"{role}:"
