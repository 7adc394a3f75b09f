"""A model's text: one step function, one sampler."""
