"""Where flood filling begins: seed policies under the names that google/ffn gives them."""

from ffn.inference.seeds.policy import SeedPolicy, Stage, seed_policy
from ffn.inference.seeds.view import FineImage, SeedView

__all__ = ["FineImage", "SeedPolicy", "SeedView", "Stage", "seed_policy"]
