"""The section `assembly` of config.yaml: how labels of sub-volumes become one volume."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ffn.config.base import NotNegative, Positive, Section, Size
from ffn.config.inference import Inference
from ffn.geometry import ZYX


class Assembly(Section):
    """Global ids over the overlaps of sub-volumes (`ffn assemble`)."""

    min_overlap_voxels: Positive = Field(100, description="Common voxels needed to call two pieces one object.")
    min_overlap_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Part of both pieces inside the overlap that must be common."
    )
    fill_nm: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Voxels that no object took go to the objects around them, up to this distance; 0 = none."
    )
    disconnected: Literal["keep", "split"] = Field(
        "keep",
        description="Objects whose voxels do not hang together in the assembled volume: keep = one object still; "
        "split = one for each piece.",
    )
    connectivity: Literal[6, 18, 26] = Field(
        26,
        description="With `split`: voxels that hang together share a face (6), or also an edge (18), or also a corner "
        "(26).",
    )
    min_size: NotNegative = Field(
        0, description="Objects of fewer image voxels in the assembled volume are dropped; 0 = none."
    )
    dtype: Literal["uint64", "uint32"] = Field("uint64", description="Type of the global ids on disk.")
    block: Size = Field((128, 128, 128), description="Voxels worked on at once, and the chunk on disk at most.")
    shard: Size | None = Field(
        None,
        description="Voxels of one file of the result, a multiple of `block`: what a process makes at once, and what a "
        "kill loses. Empty = about 128, 256, 512 or 1,024 an axis, by the size of the volume.",
    )
    workers: NotNegative = Field(
        0, description="Processes that work side by side; 0 = one for each core. The result is the same."
    )

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        if self.shard is not None and any(n % size for n, size in zip(self.shard, self.block, strict=True)):
            raise ValueError(f"shard {list(self.shard)} must be a multiple of block {list(self.block)} along each axis")
        return self


def overlap_problems(extent: ZYX, inference: Inference, assembly: Assembly) -> list[str]:
    """Axes along which neighbouring sub-volumes of a region share too few voxels for anything to be joined.

    Args:
        extent: Voxels zyx of the region.
        inference: How it is cut.
        assembly: What it takes to join two segments.
    """
    if inference.subvolume_size is None:
        return []
    size = [min(s, n) for s, n in zip(inference.subvolume_size, extent, strict=True)]
    problems = []
    for axis, (name, overlap) in enumerate(zip("zyx", inference.subvolume_overlap, strict=True)):
        face = math.prod(n for other, n in enumerate(size) if other != axis)
        if size[axis] < extent[axis] and overlap * face < assembly.min_overlap_voxels:
            needed = -(-assembly.min_overlap_voxels // face)
            advice = (
                f"the smallest overlap that works is {needed}"
                if needed < size[axis]
                else f"no overlap works with sub-volumes of {size[axis]}: use larger ones or a lower minimum"
            )
            problems.append(
                f"inference.subvolume_overlap {overlap} along {name}: neighbouring sub-volumes share {overlap * face} "
                f"voxels, fewer than assembly.min_overlap_voxels {assembly.min_overlap_voxels}, so no object would be "
                f"joined across; {advice}."
            )
    return problems
