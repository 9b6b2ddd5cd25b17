"""Distillation: examples to rows, the teacher to tapes, and the losses between them."""
