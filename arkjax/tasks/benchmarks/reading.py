"""Records of the data sets that ask about a text: HotpotQA, QASPER, QMSum."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arkjax.tasks.benchmarks.drafts import Draft
from arkjax.tasks.benchmarks.records import Record

SPAN_INSTRUCTION = (
    "Reason step by step, and give the answer at the end in as few words as possible, "
    "as in: Answer: New York"
)
PAPER_INSTRUCTION = (
    "Answer from the paper, as briefly as possible: with words of it, with yes or no, or with "
    "Unanswerable if it does not say. Give the answer at the end, as in: Answer: yes"
)
SUMMARY_INSTRUCTION = "Answer in a few sentences, from what was said in the meeting."

_MEETINGS = ("academic", "committee", "product")


def _pairs(record: Record, field: str, first: str, second: str) -> list[tuple[str, Any]]:
    """Pairs, as lists of two or as two lists of one length, which is how the Hub's copies are."""
    value = record.any(field)
    if isinstance(value, Mapping):
        part = record.part(value, field)
        ones, others = part.items(first), part.items(second)
        if len(ones) != len(others):
            raise record.wrong(field, f"{len(ones)} of {first!r} and {len(others)} of {second!r}")
        return list(zip(ones, others, strict=True))
    pairs = record.items(field)
    if any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in pairs):
        raise record.wrong(field, f"expected pairs of {first} and {second}")
    return [tuple(pair) for pair in pairs]


def hotpotqa(record: Record) -> Iterator[Draft]:
    """`question`, `answer`, `type`, `level`, `context`: ten paragraphs as titles and sentences.

    Context and supporting facts are pairs in the authors' files, two lists in the Hub's.
    """
    paragraphs = []
    for title, sentences in _pairs(record, "context", "title", "sentences"):
        if isinstance(sentences, str) or not isinstance(sentences, Sequence):
            raise record.wrong("context", "expected sentences as a list")
        text = " ".join(record.words(s, "context", empty=True) for s in sentences)
        paragraphs.append(f"{record.words(title, 'context')}\n{text}".strip())
    answer = record.text("answer")
    facts = _pairs(record, "supporting_facts", "title", "sent_id")
    meta = {
        "answers": [answer],
        "difficulty": record.text("level"),
        "supporting_facts": [[str(title), int(sentence)] for title, sentence in facts],
        "source_id": record.text("_id", "id"),
    }
    question = "\n\n".join([*paragraphs, f"Question: {record.text('question')}"])
    yield Draft(question, answer, record.text("type"), meta)


def qasper(record: Record) -> Iterator[Draft]:
    """A paper: `title`, `abstract`, `full_text`, and `qas` with the answers of several annotators.

    Sections and questions are lists of objects in the authors' files, where papers stand under
    their ids; in the Hub's copy they are objects of lists. The domain is the kind of the first
    answer: extractive, abstractive, boolean or none, as the authors' evaluation calls them.
    """
    parts = [record.text("title"), record.text("abstract", empty=True)]
    for section in _objects(record, "full_text"):
        # Text before the first heading has none.
        name = section.text("section_name", empty=True) if section.has("section_name") else ""
        paragraphs = [
            section.words(p, "paragraphs", empty=True) for p in section.items("paragraphs")
        ]
        parts.append("\n".join(filter(None, [name, *paragraphs])))
    paper = "\n\n".join(filter(None, parts))
    identity = record.text("_key", "id")
    for asked in _objects(record, "qas"):
        answers = [_answer(asked, answer) for answer in _answers(asked)]
        if not answers:
            raise asked.wrong("answers", "there are none")
        kind, first = answers[0]
        meta = {
            "answers": list(dict.fromkeys(text for _, text in answers)),
            "kinds": [kind for kind, _ in answers],
            "source_id": f"{identity} {asked.text('question_id')}",
        }
        question = f"{paper}\n\nQuestion: {asked.text('question')}"
        yield Draft(question, first, kind, meta)


def _objects(record: Record, field: str) -> list[Record]:
    """A list of objects, or an object of lists turned into one."""
    value = record.any(field)
    if not isinstance(value, Mapping):
        items = record.items(field)
        return [record.part(item, f"{field}[{i}]") for i, item in enumerate(items)]
    part = record.part(value, field)
    columns = {name: part.items(name) for name in value}
    if len(lengths := {len(column) for column in columns.values()}) > 1:
        raise record.wrong(field, f"its lists have different lengths, {sorted(lengths)}")
    count = lengths.pop() if lengths else 0
    return [
        record.part({name: column[i] for name, column in columns.items()}, f"{field}[{i}]")
        for i in range(count)
    ]


def _answers(asked: Record) -> list[Record]:
    """The annotators' answers to a question."""
    return [given.part(given.any("answer"), "answer") for given in _objects(asked, "answers")]


def _answer(asked: Record, answer: Record) -> tuple[str, str]:
    """Kind and text of one annotator's answer, in the authors' order of precedence."""
    if answer.value.get("unanswerable"):
        return "none", "Unanswerable"
    if spans := answer.value.get("extractive_spans"):
        return "extractive", ", ".join(answer.words(s, "extractive_spans") for s in spans)
    if answer.value.get("free_form_answer"):
        return "abstractive", answer.text("free_form_answer")
    yes = answer.value.get("yes_no")
    if not isinstance(yes, bool):
        raise asked.wrong("answers", "one has neither spans, text, yes_no nor unanswerable")
    return "boolean", "Yes" if yes else "No"


def qmsum(record: Record) -> Iterator[Draft]:
    """A meeting: `meeting_transcripts`, `general_query_list`, `specific_query_list`.

    Every query is a problem over the whole transcript. Specific ones name the turns that they are
    about in `relevant_text_span`, as pairs of first and last; they are kept in `meta["spans"]`. The
    domain is the kind of meeting, as far as the file's name or folder says it.
    """
    turns = []
    for i, item in enumerate(record.items("meeting_transcripts")):
        turn = record.part(item, f"meeting_transcripts[{i}]")
        turns.append(f"{turn.text('speaker')}: {turn.text('content', empty=True)}")
    transcript = "\n".join(turns)
    words = re.findall(r"[a-z]+", record.file.lower())
    kind = next((word for word in reversed(words) if word in _MEETINGS), "meeting")
    for part in ("general", "specific"):
        name = f"{part}_query_list"
        for i, item in enumerate(record.items(name)):
            asked = record.part(item, f"{name}[{i}]")
            answer = asked.text("answer")
            meta: dict[str, Any] = {"part": part, "answers": [answer]}
            if part == "specific":
                spans = asked.items("relevant_text_span")
                meta["spans"] = [_span(asked, span, len(turns)) for span in spans]
            yield Draft(f"{transcript}\n\nQuestion: {asked.text('query')}", answer, kind, meta)


def _span(asked: Record, span: Any, turns: int) -> list[int]:
    try:
        first, last = (int(number) for number in span)
    except (TypeError, ValueError):
        raise asked.wrong(
            "relevant_text_span", f"expected pairs of turns, found {str(span)[:60]!r}"
        ) from None
    if not 0 <= first <= last:
        raise asked.wrong("relevant_text_span", f"[{first}, {last}] is no span of {turns} turns")
    return [first, last]
