"""The flood-filling network and its checkpoints. Import this package before TensorFlow.

TensorFlow turns oneDNN on by itself only on some Intel processors; on others a training step takes several times
as long without it. The switch is read when TensorFlow is imported, so it is set here.
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
