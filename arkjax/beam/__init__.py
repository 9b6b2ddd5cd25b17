"""Synthesis of any number of shards as one Apache Beam pipeline.

`arkjax.beam.pipeline.select` does what `arkjax.synthesis.unified.Unifier` does, by the same code,
on whatever runner Beam has. Beam itself is imported in `flow`, `steps` and `worker`, which nothing
imports until a pipeline is built; it comes with the extra `beam`.
"""
