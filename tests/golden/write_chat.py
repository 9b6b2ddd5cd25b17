"""Write the tokenizers and the expected chats below tests/golden/chat again.

    python tests/golden/write_chat.py

It needs `transformers`, whose chats and ids the tests hold ArkJAX to; the tests themselves need
only what is written here. The chat templates in chat/templates are in the formats of the model
families that they are named for. The tokenizers are small ones of the families' kinds, trained on
the lines below.
"""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent / "chat"
LINES = """
The quick brown fox jumps over the lazy dog. A stitch in time saves nine, they say.
You are a helpful assistant. You are a careful critic who answers in one short sentence.
What is the capital of France? The capital of France is Paris. How many coins are in the gap?
So the total is 12, and then 3 + 4 = 7; 100% of 1,234.56 is the same. What's the weather today?
def answer(question: str) -> str: return json.dumps({"name": question, "parameters": {}})
system user assistant model tool ipython function call think response header name arguments
Wer zuletzt lacht, lacht am besten. Übung macht den Meister. L'été, le café était déjà fermé.
El niño comió mañana. Привет, мир! Как дела? Γειά σου Κόσμε.
日本語のテキスト。你好，世界。안녕하세요.
I think, therefore I am. Let me think about this step by step: first, second, third.
Today Date: 26 Jul 2024. Cutting Knowledge Date: December 2023. Environment: ipython
""".strip().splitlines()
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS}|\p{{N}}{{1,3}}|{REST}"
QWEN_SPLIT = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{WORDS}|\p{{N}}|{REST}"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "  two  spaces \n\n\tand a tab ",
    "Übung macht den Meister: café, cafe\u0301, naïve.",
    "日本語のテキスト 你好 안녕하세요 Привет",
    "👩‍👩‍👧‍👦 flags 🇩🇪 and e\u0301\u0323 marks, \u200d joiners \ufeff",
    "1234567 3.14159 2024-07-26",
    "def f(x):\n    return {'a': [x, x**2]}\n",
    "Spelled: <s></s> <|im_end|> <|eot_id|> <end_of_turn> [INST] <unk> <think> <bos>",
    "\x00\x01 control \x7f",
]

PLAIN = [{"role": "user", "content": "What is the capital of France?"}]
TURNS = [
    *PLAIN,
    {"role": "assistant", "content": "  Paris. \n"},
    {"role": "user", "content": " And of Spain?  "},
]
SYSTEM = [{"role": "system", "content": "You are a careful critic."}]
UNICODE = [
    {"role": "user", "content": "Übung 👩‍👩‍👧 日本語\n\n  e\u0301 \t«ça»"},
    {"role": "assistant", "content": "Привет, мир! 🇩🇪"},
    {"role": "user", "content": "  안녕하세요 {{ not a template }} {% nor this %}"},
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city, in °C <now>",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLED = [
    {"role": "user", "content": "What's the weather in Zürich?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": '{"degrees": 21}'},
]
TOLD = [*CALLED, {"role": "assistant", "content": "21 degrees."}]
THOUGHT = "<think>\nFrance, so Paris.\n</think>\n\nParis."
REASONED = {"role": "assistant", "reasoning_content": "France, so Paris.", "content": "Paris."}
PARTS = [{"role": "user", "content": [{"type": "text", "text": " How many coins? "}]}]
OFF = {"add_generation_prompt": False}
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}

COMMON = [
    ("a question", PLAIN, {}),
    ("no generation prompt", PLAIN, OFF),
    ("turns", TURNS, {}),
    ("finished turns", TURNS[:2], OFF),
    ("system and turns", [*SYSTEM, *TURNS], {}),
    ("unicode", UNICODE, {}),
    ("to be continued", [*PLAIN, {"role": "assistant", "content": "The capital is"}], CONTINUE),
    ("two questions", [*PLAIN, *PLAIN], {}),
]
TOOLS = [
    ("tools", [*SYSTEM, *CALLED[:1]], {"tools": [TOOL]}),
    ("a tool's answer", CALLED, {"tools": [TOOL]}),
    ("after a tool's answer", TOLD, {"tools": [TOOL, TOOL], **OFF}),
]
THINKING = [
    ("no thinking", TURNS, {"enable_thinking": False}),
    ("thinking", TURNS, {"enable_thinking": True}),
    ("thoughts in the content", [*PLAIN, {"role": "assistant", "content": THOUGHT}], OFF),
    (
        "old thoughts",
        [*PLAIN, {"role": "assistant", "content": THOUGHT}, {"role": "user", "content": "Sure?"}],
        {},
    ),
    ("reasoning", [*PLAIN, REASONED], OFF),
    ("reasoning to be continued", [*PLAIN, REASONED], CONTINUE),
    ("two answers of tools", [*CALLED, CALLED[-1]], {"tools": [TOOL]}),
]
CHATS: dict[str, tuple[str, list[tuple[str, list, dict]]]] = {
    "llama2": ("llama2", COMMON),
    "llama3": ("llama3", COMMON),
    "llama31": (
        "llama3",
        [*COMMON, *TOOLS, ("parts", PARTS, {}), ("a date", PLAIN, {"date_string": "1 Jan 2025"})],
    ),
    "mistral": ("mistral", [*COMMON, *TOOLS]),
    "qwen25": ("qwen", [*COMMON, *TOOLS]),
    "qwen3": ("qwen", [*COMMON, *TOOLS, *THINKING]),
    "gemma2": ("gemma", COMMON),
    "gemma3": ("gemma", [*COMMON, ("parts", PARTS, {})]),
}


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def special(*texts: str) -> list[tokenizers.AddedToken]:
    return [tokenizers.AddedToken(text, special=True, normalized=False) for text in texts]


def byte_level(split: str, size: int, normalizer: Any, ignore_merges: bool) -> tokenizers.Tokenizer:
    """A BPE over bytes, as of Llama 3 and Qwen."""
    model = models.BPE(ignore_merges=ignore_merges)
    tokenizer = tokenizers.Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES * 4, trainer)
    return tokenizer


def byte_fallback(specials: list[str], normalizer: Any, splitter: Any) -> tokenizers.Tokenizer:
    """A BPE over characters that spells unknown ones as bytes, as of Gemma and Mistral."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.normalizer = normalizer
    if splitter:
        trained.pre_tokenizer = splitter
    # The other lines hold the characters to be spelled as bytes.
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False)
    trained.train_from_iterator([line for line in LINES if line.isascii()] * 4, trainer)
    model = json.loads(trained.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {text: index for index, text in enumerate([*specials, *BYTES, *words])}
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizer
    if splitter:
        tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(special(*specials))
    return tokenizer


def begin_with(tokenizer: tokenizers.Tokenizer, bos: str) -> None:
    """Have the library put `bos` first where it is asked to add special tokens."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def save(name: str, tokenizer: tokenizers.Tokenizer | None, config: dict, ends: Any) -> None:
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": ends, "temperature": 0.6})


def write_llama3() -> None:
    tokenizer = byte_level(LLAMA3_SPLIT, 600, None, ignore_merges=True)
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id"]
    tokenizer.add_special_tokens(special(*[f"<|{name}|>" for name in [*names, "python_tag"]]))
    begin_with(tokenizer, "<|begin_of_text|>")
    ends = [tokenizer.token_to_id(f"<|{name}|>") for name in ("end_of_text", "eom_id", "eot_id")]
    config = {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": [
            {"name": "default", "template": template("llama3")},
            {"name": "tool_use", "template": template("llama31")},
        ],
    }
    save("llama3", tokenizer, config, ends)


def write_qwen() -> None:
    tokenizer = byte_level(QWEN_SPLIT, 600, normalizers.NFC(), ignore_merges=False)
    tokenizer.add_special_tokens(special("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    names = ["tool_call", "/tool_call", "tool_response", "/tool_response", "think", "/think"]
    tokenizer.add_tokens([tokenizers.AddedToken(f"<{name}>", normalized=False) for name in names])
    config = {
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    ends = [tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>")]
    save("qwen", tokenizer, config, ends)


def write_gemma() -> None:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    splitter = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer = byte_fallback(specials, normalizers.Replace(" ", "▁"), splitter)
    # Runs of white space are tokens of their own, and no special ones.
    tokenizer.add_tokens(
        [tokenizers.AddedToken(text, normalized=False) for text in ("\n\n", "\n\n\n", "▁▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    begin_with(tokenizer, "<bos>")
    config = {
        **{f"{role}_token": f"<{role}>" for role in ("bos", "eos", "pad", "unk")},
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    save("gemma", tokenizer, config, [1, 5])


def write_mistral() -> None:
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"]
    specials += ["[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = byte_fallback(specials, normalizer, None)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    begin_with(tokenizer, "<s>")
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    save("mistral", tokenizer, config, 2)


def write_llama2() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=600,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
        "tokenizer_class": "LlamaTokenizer",
        "chat_template": template("llama2"),
    }
    save("llama2", None, config, 2)
    folder = HERE / "llama2"
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    # The same vocabulary once more, as `transformers` turns it into a tokenizer.json.
    converted = transformers.AutoTokenizer.from_pretrained(folder)
    converted.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def template(name: str) -> str:
    return (HERE / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def chats(name: str) -> dict[str, Any]:
    """What `transformers` makes of the chats of one template."""
    folder, cases = CHATS[name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(HERE / folder)
    expected = []
    for case, messages, options in cases:
        options = {"add_generation_prompt": True, **options}
        apply = {"chat_template": template(name), **options}
        result: dict[str, Any] = {}
        try:
            result["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **apply)
            result["ids"] = tokenizer.apply_chat_template(messages, return_dict=False, **apply)
        except Exception as error:
            result = {"error": str(error)}
        expected.append({"case": case, "messages": messages, "options": options, **result})
    return {"template": name, "tokenizer": folder, "chats": expected}


def encodings(folder: str) -> list[dict[str, Any]]:
    """What `transformers` makes of plain texts: special tokens parsed, and not."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(HERE / folder)
    found = []
    for text in TEXTS:
        ids, plain = (
            tokenizer.encode(text, add_special_tokens=False, split_special_tokens=split)
            for split in (False, True)
        )
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        found.append({"text": text, "special": ids, "plain": plain, "decoded": decoded})
    return found


def main() -> None:
    for write in (write_llama2, write_llama3, write_mistral, write_qwen, write_gemma):
        write()
    for name in CHATS:
        write_json(HERE / f"{name}.json", chats(name))
    folders = sorted({folder for folder, _ in CHATS.values()})
    write_json(HERE / "encodings.json", {folder: encodings(folder) for folder in folders})


if __name__ == "__main__":
    main()
