"""The section `assembly` of config.yaml: how labels of sub-volumes become one volume."""

from typing import Annotated

from pydantic import Field

from ffn.config.base import Positive, Section, Size


class Assembly(Section):
    """Global ids over the overlaps of sub-volumes (`ffn assemble`)."""

    min_overlap_voxels: Positive = Field(100, description="Common voxels needed to call two pieces one object.")
    min_overlap_fraction: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Part of both pieces inside the overlap that must be common."
    )
    fill_nm: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Voxels that no object took go to the objects around them, up to this distance; 0 = none."
    )
    block: Size = Field((128, 128, 128), description="Voxels written at once, and the chunk on disk at most.")
