"""The stages of a run, one a module: each a function of a session and its directory.

What a stage returns is its summary, which later stages and the report read.
"""
