"""Synchronous data-parallel training of the flood-filling network, on one rank or on many by Horovod."""

import ffn.model  # noqa: F401  (sets TensorFlow's switches before anything here imports TensorFlow)
