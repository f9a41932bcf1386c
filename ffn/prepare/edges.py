"""Where the image has edges: its gradient against the local average gradient."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# The reference averages the gradient over about 49 voxels, six standard deviations of its Gaussian.
LOCAL_MEAN_SIGMA = 49 / 6


def sobel_magnitude(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root of the summed squares of the Sobel derivatives along all axes.

    Args:
        image: float32 [z, y, x], or [y, x] for one section, any grey scale; it is mirrored at its border.

    Returns:
        float32, as large, in grey values times the weight of a Sobel kernel (3x3x3: 32, 3x3: 8).
    """
    squares = np.zeros(image.shape, np.float32)
    for axis in range(image.ndim):
        derivative = ndimage.sobel(image, axis=axis, output=np.float32, mode="reflect")
        squares += np.square(derivative, out=derivative)
    return np.sqrt(squares, out=squares)


def edge_mask(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Voxels whose gradient exceeds the Gaussian average of the gradient around them.

    The average has a standard deviation of 49/6 voxels along every axis, so that contrast that varies over the
    volume does not matter. About 16 bytes a voxel are in use at the peak.

    Args:
        image: float32 [z, y, x], or [y, x] for one section.

    Returns:
        bool, as large.
    """
    edges = sobel_magnitude(image)
    local_mean = ndimage.gaussian_filter(edges, LOCAL_MEAN_SIGMA, mode="reflect", truncate=4.0)
    return edges > local_mean
