"""The flood-filling network and its checkpoints. Import this package before TensorFlow.

TensorFlow turns oneDNN on by itself only on some Intel processors; on others a training step takes several times
as long without it. The switch is read when TensorFlow is imported, so it is set here.

Of its messages only what ends a process is shown. Among its errors are those of a rewriting of graphs (remapping) that
stumbles over the residual connections and is left out there, which changes nothing but costs 6 % where it is off.
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
