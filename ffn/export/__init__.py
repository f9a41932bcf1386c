"""A run as Neuroglancer layers, and a local server with Neuroglancer to look at it."""

from ffn.export.run import export_run
from ffn.export.server import ViewServer
from ffn.export.state import viewer_state, with_server

__all__ = ["ViewServer", "export_run", "viewer_state", "with_server"]
