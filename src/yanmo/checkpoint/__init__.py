"""A checkpoint is a Hugging Face folder."""
