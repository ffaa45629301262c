"""The places of caches and images: folders of this machine, or `s3://bucket/prefix` on an S3-compatible store.

`paths` distinguishes them, `connection` reaches the store, and `files` lists, deletes and replaces on both. An object
of a store appears whole or not at all, which is all that the blocks of a cache need.
"""

from emofuse.stores.connection import async_file_system, file_system, forget_connections, store_errors
from emofuse.stores.files import (
    PARTIAL_SUFFIX,
    file_sizes,
    list_objects,
    making_folder,
    partials,
    remove_tree,
    replace_file,
    replacing,
)
from emofuse.stores.paths import SCHEME, RemotePath, as_path, is_remote, open_binary

__all__ = [
    "PARTIAL_SUFFIX",
    "SCHEME",
    "RemotePath",
    "as_path",
    "async_file_system",
    "file_sizes",
    "file_system",
    "forget_connections",
    "is_remote",
    "list_objects",
    "making_folder",
    "open_binary",
    "partials",
    "remove_tree",
    "replace_file",
    "replacing",
    "store_errors",
]
