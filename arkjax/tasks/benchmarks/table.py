"""The published data sets that ArkJAX knows: reader, grader, splits and home of each."""

import dataclasses

from arkjax.tasks.benchmarks import choices, mathematics, reading, truthful
from arkjax.tasks.benchmarks.benchmark import Benchmark
from arkjax.tasks.benchmarks.places import Layout
from arkjax.tasks.graders import (
    ChoiceGrader,
    MathGrader,
    RougeGrader,
    SpanGrader,
    TruthfulGrader,
)

_PARQUET = "@refs/convert/parquet"  # where the Hub keeps what its code would make

BENCHMARKS = {
    benchmark.name: dataclasses.replace(benchmark, published=True)
    for benchmark in (
        Benchmark(
            "gsm8k",
            mathematics.gsm8k,
            MathGrader(),
            ("train", "test"),
            Layout("gsm8k", "openai/gsm8k", without=("socratic",)),
            mathematics.INSTRUCTION,
        ),
        Benchmark(
            "math",
            mathematics.math,
            MathGrader(),
            ("train", "test"),
            Layout("math", "EleutherAI/hendrycks_math"),
            mathematics.INSTRUCTION,
        ),
        Benchmark(
            "math_500",
            mathematics.math_500,
            MathGrader(),
            ("test",),
            Layout("math_500", "HuggingFaceH4/MATH-500"),
            mathematics.INSTRUCTION,
        ),
        Benchmark(
            "metamath_qa",
            mathematics.metamath_qa,
            MathGrader(),
            ("train",),
            Layout("metamath_qa", "meta-math/MetaMathQA", {"train": ("metamathqa", "train")}),
            mathematics.INSTRUCTION,
        ),
        # Published as one file of 1,000, a challenge set. A copy on the Hub cuts it into 700 and
        # 300, in an order that cannot be told from the file: there too all are read.
        Benchmark(
            "svamp",
            mathematics.svamp,
            MathGrader(),
            ("test",),
            Layout("svamp", "ChilleD/SVAMP", {"test": ("svamp", "train", "test")}),
            mathematics.INSTRUCTION,
        ),
        Benchmark(
            "aqua",
            choices.aqua,
            ChoiceGrader(choices="ABCDE"),
            ("train", "validation", "test"),
            Layout("aqua", "deepmind/aqua_rat", without=("tokenized",)),
            choices.INSTRUCTION,
        ),
        # The test split is published without answers.
        Benchmark(
            "medmcqa",
            choices.medmcqa,
            ChoiceGrader(choices="ABCD"),
            ("train", "validation"),
            Layout("medmcqa", "openlifescienceai/medmcqa"),
            choices.INSTRUCTION,
            begin=choices.begin_medmcqa,
        ),
        Benchmark(
            "hotpotqa",
            reading.hotpotqa,
            SpanGrader(),
            ("train", "validation"),
            Layout("hotpotqa", f"hotpotqa/hotpot_qa{_PARQUET}", without=("fullwiki",)),
            reading.SPAN_INSTRUCTION,
        ),
        Benchmark(
            "qasper",
            reading.qasper,
            SpanGrader(),
            ("train", "validation", "test"),
            Layout("qasper", f"allenai/qasper{_PARQUET}", keyed=True),
            reading.PAPER_INSTRUCTION,
            several=True,
        ),
        Benchmark(
            "qmsum",
            reading.qmsum,
            RougeGrader(),
            ("train", "validation", "test"),
            # The authors' folder "ALL" repeats what the three kinds of meetings have.
            Layout("qmsum", without=("all",)),
            reading.SUMMARY_INSTRUCTION,
            several=True,
        ),
        Benchmark(
            "truthfulqa",
            truthful.generation,
            TruthfulGrader(),
            ("validation",),
            Layout(
                "truthfulqa",
                "truthfulqa/truthful_qa",
                {"validation": ("truthfulqa", "validation")},
                without=("multiple", "mc"),
            ),
            truthful.INSTRUCTION,
        ),
        Benchmark(
            "truthfulqa_mc",
            truthful.multiple_choice,
            ChoiceGrader(choices="ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
            ("validation",),
            Layout(
                "truthfulqa",
                "truthfulqa/truthful_qa",
                {"validation": ("mc", "validation")},
                without=("generation",),
            ),
            truthful.CHOICE_INSTRUCTION,
        ),
    )
}
"""By name."""
