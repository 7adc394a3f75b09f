"""transformers' GPT-2 in the shape of one of ours: the other side of several benchmarks."""

from typing import Any

from yanmo.model.shape import GPTConfig


def transformers_gpt2(config: GPTConfig, **more: Any) -> Any:
    """A GPT2LMHeadModel with fresh weights; ``more`` goes to its GPT2Config."""
    from transformers import GPT2Config, GPT2LMHeadModel

    p = config.dropout
    settings: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0, "use_cache": False} | more
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size, n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd,
            n_positions=config.block_size, resid_pdrop=p, embd_pdrop=p, attn_pdrop=p, **settings,
        )
    )  # fmt: skip
