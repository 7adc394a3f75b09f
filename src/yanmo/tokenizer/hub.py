"""A tokenizer from a model hub by its name, when online: only its vocabulary files are fetched."""

from pathlib import Path

from yanmo.core.errors import TokenizerError

SETS = (
    ("tokenizer.json", "tokenizer_config.json"),
    ("vocab.json", "merges.txt"),
    ("vocab.txt", ""),
    ("tokenizer.model", ""),
    ("spiece.model", ""),
    ("sentencepiece.bpe.model", ""),
)
"""What is looked for, and what may stand beside it."""


def fetch(name: str) -> Path:
    """The fetched file of repository ``name`` (of Hugging Face, or of the mirror in ``HF_ENDPOINT``).

    Raises:
        TokenizerError: it is not there, holds no vocabulary, or there is no connection.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        for first, beside in SETS:
            if (file := _fetched(name, first)) is not None:
                if beside:
                    _fetched(name, beside)
                return file
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise TokenizerError(
            f"'{name}' is no file here, and could not be fetched from the hub: {error}",
            where=name,
            hint="check the name and the connection; a mirror is named in HF_ENDPOINT; or give a local file",
        ) from error
    raise TokenizerError(
        "the repository holds no vocabulary yanmo reads",
        name,
        "look at its files, and give one as a local file",
    )


def _fetched(name: str, file: str) -> Path | None:
    """A file of a repository; None if it holds no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, file))
    except LocalEntryNotFoundError:  # one of those below, but it means that the hub was not reached
        raise
    except EntryNotFoundError:
        return None
