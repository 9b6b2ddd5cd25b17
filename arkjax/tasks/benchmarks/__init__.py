"""Published data sets as problem sets; one of one's own is a `Benchmark` with a reader."""

from arkjax.tasks.benchmarks.benchmark import Benchmark
from arkjax.tasks.benchmarks.drafts import Draft
from arkjax.tasks.benchmarks.places import Layout
from arkjax.tasks.benchmarks.records import Record

__all__ = ["Benchmark", "Draft", "Layout", "Record"]
