"""Flood filling of one sub-volume: movement, canvas, network call, saved states, tiling."""
