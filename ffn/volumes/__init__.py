"""Volumes of voxels: one door, `open_volume`, for every format; block-wise writing of HDF5 and of sharded stores.

`open_image` and `open_labels` are the same door with the type that the workflow computes with.
"""

from ffn.volumes.base import Volume, VoxelSize
from ffn.volumes.check import check_fov, check_labels_not_empty, check_pair
from ffn.volumes.chunks import chunk_dividing, chunk_within
from ffn.volumes.coarse import coarse_shape, coarse_voxel_size, coarsen, interpolate, phases
from ffn.volumes.convert import as_labels, as_uint8
from ffn.volumes.open import open_image, open_labels, open_volume
from ffn.volumes.pooling import pool
from ffn.volumes.scale import Scale, require_scale, scale_of
from ffn.volumes.store import Store, StoreLayout, shard_bytes, shard_of
from ffn.volumes.write import Hdf5Writer, WritableVolume, create_hdf5, create_hdf5_file, create_plain_hdf5, parse_output

__all__ = [
    "Hdf5Writer",
    "Scale",
    "Store",
    "StoreLayout",
    "Volume",
    "VoxelSize",
    "WritableVolume",
    "as_labels",
    "as_uint8",
    "check_fov",
    "check_labels_not_empty",
    "check_pair",
    "chunk_dividing",
    "chunk_within",
    "coarse_shape",
    "coarse_voxel_size",
    "coarsen",
    "create_hdf5",
    "create_hdf5_file",
    "create_plain_hdf5",
    "interpolate",
    "open_image",
    "open_labels",
    "open_volume",
    "parse_output",
    "phases",
    "pool",
    "require_scale",
    "scale_of",
    "shard_bytes",
    "shard_of",
]
