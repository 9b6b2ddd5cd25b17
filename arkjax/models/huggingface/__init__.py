"""Published checkpoints of Hugging Face's `transformers`: read onto a mesh, and written again."""
