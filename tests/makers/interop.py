"""Which model of whom opens where: every cell is proven by a test, or says why there is none.

``docs/interop.md`` shows this table (``docs/make_interop.py`` writes it).
"""

FAMILIES = ("gpt2", "modern", "moe")
VOCABULARIES = ("char", "bpe", "unigram", "wordpiece")
SOURCES = ("yanmo", "Hugging Face", "GPT2-Chinese", "nanoGPT")
TARGETS = ("hf", "gguf", "onnx")

GPT2_ONLY = "it makes GPT-2 only"
VOCAB_TXT = "its models come with a vocab.txt"
META = "its checkpoints come with a meta.pkl of characters, or GPT-2's byte BPE"


def not_from(source: str, family: str, vocabulary: str) -> str | None:
    """Why a source has no such model; None if it is taken over."""
    if source in ("GPT2-Chinese", "nanoGPT") and family != "gpt2":
        return GPT2_ONLY
    if source == "GPT2-Chinese" and vocabulary != "wordpiece":
        return VOCAB_TXT
    if source == "nanoGPT" and vocabulary not in ("char", "bpe"):
        return META
    return None


def not_to(target: str, family: str, vocabulary: str) -> str | None:
    """Why a model does not leave this way; None if it does."""
    if target == "gguf" and vocabulary == "unigram":
        return "llama.cpp's unigram has no bytes for what the vocabulary lacks"
    if target == "gguf" and vocabulary == "wordpiece":
        return "llama.cpp cuts words otherwise, and writes spaces between Chinese characters"
    return None
