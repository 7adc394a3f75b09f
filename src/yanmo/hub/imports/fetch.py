"""Downloading a model from a hub by its name: its weights, config and vocabulary, and nothing else."""

from pathlib import Path

from yanmo.core.errors import CheckpointError
from yanmo.tokenizer.hub import fetch

SAFE = ("config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors",
        "tokenizer_config.json", "chat_template.jinja")  # fmt: skip
PICKLED = ("pytorch_model.bin",)


def fetch_model(name: str) -> Path:
    """The folder of repository ``name`` (of Hugging Face, or of the mirror in ``HF_ENDPOINT``).

    Raises:
        CheckpointError: it is not there, holds no model, or there is no connection.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(SAFE)))
        # a pickle is fetched only where the repository has nothing safer
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*SAFE, *PICKLED]))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"'{name}' is not a local file and could not be downloaded from the hub: {error}",
            where=name,
            hint="check the name and the connection; HF_ENDPOINT names a mirror; or give a local folder",
        ) from error
    fetch(name)  # the vocabulary, into the same folder
    return folder
