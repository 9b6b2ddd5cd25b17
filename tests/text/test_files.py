"""The files of a checkpoint folder: read, listed, hashed, and refused where they are damaged."""

import json
import pickle
import shutil

import pytest

from arkjax.errors import DataError
from arkjax.storage import sha256_file
from arkjax.text.files import has_chat_template, tokenizer_files, tokenizer_hash
from arkjax.text.templates import load_chat_template
from arkjax.text.tokenizer import load_tokenizer

pytestmark = pytest.mark.fast

HELLO = [{"role": "user", "content": "Hello!"}]
PICKLE = pickle.dumps({"model": "x"})
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_copies_of_the_listed_files_are_the_same_tokenizer(checkpoint, tmp_path):
    folder = checkpoint("llama3")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "other.jinja").write_text("other")
    (folder / "model.safetensors").write_bytes(b"weights")
    for file in tokenizer_files(folder):
        target = tmp_path / "copy" / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    copied = load_tokenizer(tmp_path / "copy")
    assert not (tmp_path / "copy" / "model.safetensors").exists()
    assert copied.hash == load_tokenizer(folder).hash == tokenizer_hash(folder)
    assert copied.end_ids == load_tokenizer(folder).end_ids
    template, original = load_chat_template(tmp_path / "copy"), load_chat_template(folder)
    assert template.hash == original.hash
    assert template.render(HELLO, name="other") == "other"


def test_the_hash_changes_with_what_makes_ids_and_with_nothing_else(checkpoint):
    folder = checkpoint("llama3")
    hashes = [tokenizer_hash(folder)]
    change(folder / "generation_config.json", temperature=1.0)
    assert tokenizer_hash(folder) == hashes[0]
    change(folder / "generation_config.json", eos_token_id=601)
    hashes.append(tokenizer_hash(folder))
    change(folder / "tokenizer_config.json", eos_token="<|eom_id|>")
    hashes.append(tokenizer_hash(folder))
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    hashes.append(tokenizer_hash(folder))
    assert len(set(hashes)) == 4


def test_a_lone_file_has_its_own_hash(checkpoint, golden):
    folder = checkpoint("llama2", "tokenizer.json", "tokenizer_config.json")
    (folder / "generation_config.json").unlink()
    model = folder / "tokenizer.model"
    hashes = {load_tokenizer(folder).hash, load_tokenizer(model).hash, sha256_file(model)}
    assert len(hashes) == 1
    assert load_tokenizer(golden / "qwen" / "tokenizer.json").hash == tokenizer_hash(
        golden / "qwen"
    )


def test_a_tokenizer_json_goes_before_a_sentencepiece_model(checkpoint, tokenizers):
    both, alone = tokenizers("llama2"), load_tokenizer(checkpoint("llama2", "tokenizer.json"))
    # Only SentencePiece puts its space before a text that begins with one.
    assert len(alone.encode(" a")) == len(both.encode(" a")) + 1


def test_chats_by_a_sentencepiece_model_have_the_ids_of_transformers(checkpoint, chats):
    folder = checkpoint("llama2", "tokenizer.json")
    tokenizer, template = load_tokenizer(folder), load_chat_template(folder)
    for case in chats("llama2")["chats"]:
        if "ids" in case:
            assert template.encode(tokenizer, case["messages"], **case["options"]) == case["ids"]


def test_added_tokens_beside_a_sentencepiece_model(checkpoint, parity):
    folder = checkpoint("llama2", "tokenizer.json")
    added = {
        "600": {"content": "<|im_start|>", "special": True},
        "601": {"content": "<|im_end|>", "special": True},
        "602": {"content": "<think>", "special": False},
    }
    change(folder / "tokenizer_config.json", added_tokens_decoder=added, eos_token="<|im_end|>")
    ours, theirs = load_tokenizer(folder), parity.AutoTokenizer.from_pretrained(folder)
    text = "<s><|im_start|>user\nThe <think>fox</s> says<|im_end|> <|im_end|>  so"
    ids = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text, special=True) == ids and {600, 601, 602} <= set(ids)
    assert (ours.eos_id, ours.vocab_size, ours.id_limit) == (601, 603, 603)
    assert not {1, 2, 600, 601} & set(ours.encode(text)) and 602 in ours.encode(text)
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert ours.decode(ids, special=True) == theirs.decode(ids)


@pytest.mark.parametrize("legacy", [True, False])
def test_legacy_models_put_a_space_behind_every_special_token(checkpoint, legacy):
    folder = checkpoint("llama2", "tokenizer.json")
    change(folder / "tokenizer_config.json", legacy=legacy)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("fox</s>fox", special=True)
    once = tokenizer.encode("fox")
    assert ids[: len(once)] == once
    assert (ids[len(once) + 1 :] == once) is legacy


def test_older_checkpoints_spread_added_tokens_over_three_files(checkpoint):
    folder = checkpoint("llama2", "tokenizer.json", "tokenizer_config.json")
    (folder / "added_tokens.json").write_text('{"<pad>": 600, "<extra>": 601}')
    (folder / "special_tokens_map.json").write_text(
        '{"eos_token": "</s>", "pad_token": {"content": "<pad>", "lstrip": false}}'
    )
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_id == 600 and "<pad>" in tokenizer.special_tokens
    assert 601 in tokenizer.encode("a<extra>b") and "<extra>" not in tokenizer.special_tokens


def test_a_special_token_that_the_vocabulary_lacks_is_added_as_transformers_does(
    checkpoint, parity
):
    folder = checkpoint("qwen")
    change(folder / "tokenizer_config.json", pad_token="[PAD]")
    ours, theirs = load_tokenizer(folder), parity.AutoTokenizer.from_pretrained(folder)
    assert ours.pad_id == theirs.pad_token_id == ours.id_limit - 1
    with pytest.raises(DataError, match=r"\[PAD\].*609 rows"):
        ours.check_fits(609, "the/model")


@pytest.mark.parametrize(
    ("file", "content", "parts"),
    [
        ("tokenizer.json", b"", ["download it again"]),
        ("tokenizer.json", b"{", ["download it again"]),
        ("tokenizer.json", b"[1, 2]", ["tokenizer.json"]),
        ("tokenizer.json", b"{}", ["tokenizer.json"]),
        ("tokenizer.json", b"\xff\xfe", ["download it again"]),
        ("tokenizer.json", b"[" * 100_000, ["tokenizer.json"]),
        ("tokenizer.json", PICKLE, ["pickle", "never loaded"]),
        ("tokenizer.json", LFS, ["git lfs pull"]),
        ("tokenizer_config.json", b"{'a': 1}", ["not JSON"]),
        ("tokenizer_config.json", b"[]", ["expected a JSON object"]),
        ("tokenizer_config.json", b'{"eos_token": 5}', ["eos_token"]),
        ("tokenizer_config.json", b'{"eos_token": {"content": ""}}', ["eos_token"]),
        ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', ["added_tokens_decoder"]),
        (
            "tokenizer_config.json",
            b'{"eos_token": "<s>", "added_tokens_decoder": {"x": {"content": "<s>"}}}',
            ["'<s>'", "'x'"],
        ),
        (
            "tokenizer_config.json",
            b'{"eos_token": "a", "added_tokens_decoder": {"7": {"content": "<|im_end|>"}}}',
            ["<|im_end|>", "602", "7", "one checkpoint"],
        ),
        (
            "tokenizer_config.json",
            b'{"eos_token": "a", "additional_special_tokens": 3}',
            ["additional_special_tokens"],
        ),
        ("generation_config.json", b'{"eos_token_id": "2"}', ["eos_token_id"]),
        ("generation_config.json", b'{"eos_token_id": [2, 5000]}', ["5000", "608"]),
        ("generation_config.json", PICKLE, ["pickle"]),
    ],
)
def test_damaged_files_are_named_with_a_remedy(checkpoint, file, content, parts):
    folder = checkpoint("qwen")
    (folder / file).write_bytes(content)
    with pytest.raises(DataError) as error:
        load_tokenizer(folder)
    message = str(error.value)
    assert file in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
def test_truncated_vocabularies_are_refused(checkpoint, file, keep):
    folder = checkpoint("llama2", *["tokenizer.json"] * (file == "tokenizer.model"))
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=file):
        load_tokenizer(folder)


@pytest.mark.parametrize("content", [b"", b"not a model", PICKLE, LFS])
def test_what_is_no_sentencepiece_model_is_refused(checkpoint, content):
    folder = checkpoint("llama2", "tokenizer.json")
    (folder / "tokenizer.model").write_bytes(content)
    for path in (folder, folder / "tokenizer.model"):
        with pytest.raises(DataError, match=r"tokenizer\.model is not a SentencePiece model"):
            load_tokenizer(path)


def test_a_folder_without_a_tokenizer_says_what_it_lacks(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="no tokenizer"):
            load_tokenizer(path)
    with pytest.raises(DataError, match=r"chat_template\.jinja"):
        load_chat_template(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(checkpoint):
    folder = checkpoint("qwen", "tokenizer_config.json")
    with pytest.raises(DataError, match=r"eos_token in a tokenizer_config\.json"):
        load_tokenizer(folder)


def test_templates_are_found_wherever_checkpoints_keep_them(checkpoint):
    folder = checkpoint("qwen")
    assert not has_chat_template(folder) and not has_chat_template(folder / "tokenizer.json")
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "{{ eos_token }} in a list"},
    ]
    change(folder / "tokenizer_config.json", chat_template=named)
    assert has_chat_template(folder)
    assert load_chat_template(folder).render(HELLO) == "<|im_end|> in a list"
    assert load_chat_template(folder).render(HELLO, tools=[{}]) == "tools"
    (folder / "chat_template.json").write_text('{"chat_template": "of a processor"}')
    assert load_chat_template(folder).render(HELLO) == "of a processor"
    (folder / "chat_template.jinja").write_text("a file")
    assert load_chat_template(folder).render(HELLO) == "a file"
    assert load_chat_template(folder / "chat_template.jinja").render(HELLO) == "a file"


@pytest.mark.parametrize("value", [5, [], [{"name": "default"}], ["x"], {"default": 3}])
def test_a_malformed_template_entry_is_named(checkpoint, value):
    folder = checkpoint("qwen")
    change(folder / "tokenizer_config.json", chat_template=value)
    with pytest.raises(DataError, match=r"tokenizer_config\.json: chat_template"):
        load_chat_template(folder)
