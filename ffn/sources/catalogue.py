"""The public data sets, and what is known about their contents.

Hashes are git's own (blob or tree SHA-1), so they can be compared with the repository's listing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stack:
    """A folder of PNG slices that must hold exactly the files `name.format(number)`, number from first to last."""

    folder: str
    name: str
    first: int
    last: int
    slice_shape: tuple[int, int]
    tree_sha1: str | None
    """Of the folder; None where unknown, then every slice is decoded instead."""

    @property
    def files(self) -> list[str]:
        return [self.name.format(number) for number in range(self.first, self.last + 1)]


@dataclass(frozen=True)
class Dataset:
    """A folder of a GitHub repository.

    Attributes:
        title: for messages.
        licence: terms under which it is published.
        repository: owner/name on GitHub.
        revisions: commits or HEAD, tried in this order; what is downloaded is verified whatever the revision.
        folder: inside the repository.
        mirror_folder: of this data inside a local mirror.
        blobs: file name to git blob SHA-1.
        stack: slices, if any.
    """

    title: str
    licence: str
    repository: str
    revisions: tuple[str, ...]
    folder: str
    mirror_folder: str
    blobs: dict[str, str]
    stack: Stack | None = None

    @property
    def files(self) -> list[str]:
        """Every file needed, relative to the data set's folder."""
        slices = [] if self.stack is None else [f"{self.stack.folder}/{name}" for name in self.stack.files]
        return [*self.blobs, *slices]


_NEUROPROOF = "janelia-flyem/neuroproof_examples"
_CREATIVE_COMMONS = "Creative Commons, see LICENSE.txt there"

DATASETS: dict[str, Dataset] = {
    "fib25_train": Dataset(
        title="FIB-25 training volume, 520^3",
        licence=_CREATIVE_COMMONS,
        repository=_NEUROPROOF,
        revisions=("HEAD", "98a7be98233dc3b4b07d876ea0640a85eb5bd6b8"),
        folder="validation_sample",
        mirror_folder="validation_sample",
        blobs={"groundtruth.h5.gz": "2a325a2435ef3d18df59d006dfb8dcaea06c0203"},
        stack=Stack("grayscale_maps", "iso.{:05d}.png", 3490, 4009, (520, 520), None),
    ),
    "fib25_test": Dataset(
        title="FIB-25 test volume, 250^3",
        licence=_CREATIVE_COMMONS,
        repository=_NEUROPROOF,
        revisions=("e2b4945f57d9bc15a9b991d0ad4990f22a54e828", "HEAD"),
        folder="training_sample2",
        mirror_folder="training_sample2",
        blobs={"groundtruth.h5.gz": "eded055634eedc4b2a2b6cea98ffb8fcc285bd3f"},
        stack=Stack(
            "grayscale_maps", "iso.{:04d}.png", 2600, 2849, (250, 250), "bcf96e312b444477e38c06f34ee6ce46237e7706"
        ),
    ),
    "fib25_checkpoint": Dataset(
        title="FFN checkpoint released by Google for FIB-25",
        licence="Apache-2.0",
        repository="google/ffn",
        revisions=("40a975a0069d267c64f70ba3b30d27f9e8a10e33", "HEAD"),
        folder="models/fib25",
        mirror_folder="",
        blobs={
            "model.ckpt-27465036.data-00000-of-00001": "f5e36b87848983c0c011dabd9c67c1675d89ea06",
            "model.ckpt-27465036.index": "e63811e5cb3ab13cc87421a5b0666cec08769b4f",
        },
    ),
}
