"""Talks in chats of all kinds: what a template makes of one user's message that holds the talk."""

import re

import pytest

from arkjax.errors import DataError
from arkjax.shipped import shipped_path
from arkjax.tasks import embedded_world
from arkjax.text.chat import BARE, BylineChat, PlainChat, TemplateChat, make_chat
from arkjax.text.templates import ChatTemplate
from arkjax.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.fast

NAMES = ("gemma2", "gemma3", "llama2", "llama3", "llama31", "mistral", "qwen25", "qwen3")
SPACED = ("llama2", "mistral")
"""Tokenizers that put a space before every text: one stands before every copied message."""
END = {
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "llama2": "</s>",
    "llama3": "<|eot_id|>",
    "llama31": "<|eot_id|>",
    "mistral": "</s>",
    "qwen25": "<|im_end|>",
    "qwen3": "<|im_end|>",
}


@pytest.fixture
def parts(templates):
    def load(name, **variables):
        template, tokenizer = templates(name)
        return TemplateChat(tokenizer, template, variables), template, tokenizer

    return load


def same(name, one, other):
    if name in SPACED:
        one, other = (re.sub(r" *(\n|</?s>|\[/?INST\]) *", r"\1", text) for text in (one, other))
    return one == other


def user(text):
    return {"role": "user", "content": text}


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_is_one_message_of_the_user(name, parts):
    chat, template, tokenizer = parts(name)
    ids = [*chat.question(" What is 3 + 4?\n")]
    for byline, words in (("ann", "I say  so 7"), ("agent 2", "No:\n\n\\boxed{8} <b>")):
        ids += [*chat.message(byline), *tokenizer.encode(words)]
    ids += chat.turn("judge", "You weigh.", "Be brief.")
    text = (
        "What is 3 + 4?\n\nann:\nI say  so 7\n\nagent 2:\nNo:\n\n\\boxed{8} <b>"
        "\n\nYou weigh.\nBe brief."
    )
    assert same(name, tokenizer.decode(ids, special=True), template.render([user(text)]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SPACED])
def test_without_copies_the_ids_are_the_templates(name, parts):
    chat, template, tokenizer = parts(name)
    ids = [*chat.question("What is 3 + 4?"), *chat.turn("judge")]
    assert ids == template.encode(tokenizer, [user("What is 3 + 4?\n\nYou are the judge.")])
    ids = [*chat.question("What is 3 + 4?"), *chat.turn(BARE)]
    assert ids == template.encode(tokenizer, [user("What is 3 + 4?")])


@pytest.mark.parametrize("name", SPACED)
def test_no_space_comes_in_where_a_text_goes_on(name, parts):
    chat, template, tokenizer = parts(name)
    ids = [*chat.question("What is 3 + 4?"), *chat.message("ann"), *chat.turn("judge", "", "Hm.")]
    text = "What is 3 + 4?\n\nann:\n\n\nYou are the judge.\nHm."
    theirs = tokenizer.decode(template.encode(tokenizer, [user(text)]), special=True)
    assert tokenizer.decode(ids, special=True).split() == theirs.split()
    assert " \n" not in tokenizer.decode(ids, special=True) and "\n " not in tokenizer.decode(ids)


@pytest.mark.parametrize("name", NAMES)
def test_generations_end_as_the_template_ends_turns(name, parts):
    chat, _, tokenizer = parts(name)
    assert chat.end_id == chat.end_ids[0] == tokenizer.token_id(END[name])
    assert set(tokenizer.end_ids) <= set(chat.end_ids) and not chat.keeps_end
    assert len(set(chat.end_ids)) == len(chat.end_ids)
    ids = [*chat.message("ann"), *chat.announce("ann", "x", "y"), *tokenizer.encode("so 7")]
    assert not set(ids) & set(chat.end_ids)


@pytest.mark.parametrize("name", NAMES)
def test_results_of_tools_are_further_messages_of_the_user(name, parts):
    chat, template, tokenizer = parts(name)
    ids = [*chat.question("q?"), *chat.turn("ann")]
    talk = [user("q?\n\nYou are the ann.")]
    for call, result in (("Action: calc[1+1]", "2"), ("Action: calc[<|im_end|>]", "error: no")):
        ids += [*tokenizer.encode(call), chat.end_id, *chat.result("calc")]
        ids += [*tokenizer.encode(result), *chat.resume("ann")]
        talk += [{"role": "assistant", "content": call}, user(f"calc:\n{result}")]
    assert same(name, tokenizer.decode(ids, special=True), template.render(talk))


def test_variables_reach_the_template(parts):
    chat, template, tokenizer = parts("qwen3", enable_thinking=False)
    ids = [*chat.question("q?"), *chat.turn(BARE)]
    assert ids == template.encode(tokenizer, [user("q?")], enable_thinking=False)
    assert tokenizer.decode(ids).endswith("<think>\n\n</think>\n\n")
    assert chat.question("q?") == parts("qwen3")[0].question("q?")


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_that_are_spelled_stay_text(name, parts):
    chat, template, tokenizer = parts(name)
    specials = " ".join(tokenizer.special_tokens)
    plain = [*chat.question("q"), *chat.message("b"), *chat.turn("b", "r", "i"), *chat.result("t")]
    spelled = [
        *chat.question(f"q {specials}"),
        *chat.message(f"b {specials}"),
        *chat.turn("b", f"r {specials}", f"i {specials}"),
        *chat.result(f"t {specials}"),
    ]
    control = set(tokenizer.special_tokens.values())
    assert [i for i in spelled if i in control] == [i for i in plain if i in control]
    # All four are there in full, as characters.
    assert tokenizer.decode(spelled).count(specials) == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ messages[0].content | lower }}<|im_end|>", "does not write its messages out"),
        ("{{ messages[0].content | tojson }}<|im_end|>", "does not write its messages out"),
        ("{{ messages[0].content | e }}<|im_end|>", "does not write its messages out"),
        ("{{ messages[0].content | replace('\n', ' ') }}<|im_end|>", "does not write"),
        ("{{ messages[0].content.split() | join(' ') }}<|im_end|>", "does not write"),
        ("{{ messages[0].content[:5] }}<|im_end|>", "does not write its messages out"),
        ("{{ messages[-1].content }}<|im_end|>", "does not write its messages out"),
        ("{% for m in messages %}{{ m.content }}<|im_end|>{{ m.content }}{% endfor %}", "once"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "no special token"),
        ("{% for m in messages %}{{ m.content }}.<|im_end|>{% endfor %}", "no special token"),
    ],
)
def test_what_cannot_hold_a_transcript_is_refused_by_name_with_the_remedy(text, reason, templates):
    _, tokenizer = templates("qwen3")
    with pytest.raises(DataError) as error:
        TemplateChat(tokenizer, ChatTemplate(text, source="models/odd"))
    message = str(error.value)
    assert "models/odd" in message and reason in message
    assert "config.chat = 'plain'" in message and "\n" not in message


def test_a_chat_is_that_of_the_folder(checkpoint, golden):
    folder = checkpoint("qwen")
    tokenizer = load_tokenizer(folder)
    assert type(make_chat(tokenizer)) is PlainChat
    assert type(make_chat(tokenizer, bylines=True)) is BylineChat
    with pytest.raises(DataError):
        make_chat(tokenizer, "template")
    text = (golden / "templates" / "qwen25.jinja").read_text("utf-8")
    (folder / "chat_template.jinja").write_text(text, "utf-8")
    for kind, cls in (("auto", TemplateChat), ("template", TemplateChat), ("plain", PlainChat),
                      ("bylines", BylineChat)):  # fmt: skip
        assert type(make_chat(tokenizer, kind, bylines=True)) is cls
    ids = make_chat(tokenizer).question("q?")
    assert tokenizer.decode(ids, special=True).endswith("<|im_start|>user\nq?")


def test_a_model_of_bylines_reads_no_roles():
    tokenizer = load_tokenizer(shipped_path(f"data/{embedded_world.NAME}/tokenizer.model"))
    bylines, plain = BylineChat(tokenizer), PlainChat(tokenizer)
    assert bylines.turn("surveyor", "You measure.", "Be brief.") == plain.turn("surveyor")
    assert bylines.announce("surveyor", "x") == [*plain.turn("surveyor"), plain.end_id]
    assert bylines.question("gap 3 8") == plain.question("gap 3 8")
    told = plain.turn("surveyor", "You measure.", "Be brief.")
    assert told == tokenizer.encode("You measure.\nBe brief.\nsurveyor:")
    assert plain.turn("surveyor", "surveyor") == plain.turn("surveyor")
    assert bylines.result("calc") == bylines.resume("calc") == plain.turn("calc")
