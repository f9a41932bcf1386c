"""A run as Neuroglancer layers or as one HDF5 file, and a local server with Neuroglancer to look at it."""

from ffn.export.hdf5 import export_hdf5
from ffn.export.run import export_run
from ffn.export.server import ViewServer
from ffn.export.state import viewer_state, with_server

__all__ = ["ViewServer", "export_hdf5", "export_run", "viewer_state", "with_server"]
