"""Evaluation: loss, perplexity, bits per character, and n-gram baselines."""
