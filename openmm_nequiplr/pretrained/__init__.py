"""Named models: shipped with the package, or downloaded.

Nothing here imports torch, so that names and cards are available quickly.
"""

from .cache import cache_directory, models_directory
from .download import download_model
from .listing import list_models, list_shipped_models
from .lookup import (
    downloaded_models,
    model_path,
    named_models,
    read_header,
    shipped_models,
    shipped_structure,
)
from .registry import ModelEntry, known_models, shipped_entries

__all__ = [
    "ModelEntry",
    "cache_directory",
    "download_model",
    "downloaded_models",
    "known_models",
    "list_models",
    "list_shipped_models",
    "model_path",
    "models_directory",
    "named_models",
    "read_header",
    "shipped_entries",
    "shipped_models",
    "shipped_structure",
]
