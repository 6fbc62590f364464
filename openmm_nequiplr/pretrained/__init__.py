"""Models by name: those that come with the package, and downloaded ones.

Nothing here imports torch, so that names and cards are at hand at once.
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
