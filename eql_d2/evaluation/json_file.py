"""The package's own file functions, by the name that the modules of the evaluation know."""

from eql_d2.files import atomic_text_file, paused_garbage_collection, read_json

__all__ = ["atomic_text_file", "paused_garbage_collection", "read_json"]
