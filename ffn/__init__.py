"""From a raw electron-microscopy volume to a neuron segmentation, with flood-filling networks."""

__version__ = "0.1.0"
