"""Making `snakemake --profile theta` work: Snakemake looks for a profile's name in the user's own folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from platformdirs import user_config_path

from ffn.errors import ClusterError

Outcome = Literal["linked", "already linked", "link replaced", "left alone"]


@dataclass(frozen=True)
class Link:
    """What was done for one profile."""

    name: str
    path: Path
    outcome: Outcome


def shipped_profiles() -> Path:
    """Folder of the workflow's profiles, in the checkout that this package is run from."""
    return Path(__file__).resolve().parents[2] / "workflow" / "profiles"


def snakemake_profiles() -> Path:
    """Folder in which Snakemake looks for profiles of this user."""
    return user_config_path("snakemake", "snakemake")


def link_profiles(source: Path, target: Path) -> list[Link]:
    """Link each profile in `source` into `target`.

    What is already there under the same name is not touched unless it is a link to nowhere (a removed checkout).
    Raises ClusterError if `source` holds no profile.
    """
    profiles = sorted(path.parent for path in source.glob("*/config.yaml"))
    if not profiles:
        raise ClusterError(f"There are no profiles in {source}; name the folder with --from.")
    target.mkdir(parents=True, exist_ok=True)
    return [Link(profile.name, target / profile.name, _link(profile, target / profile.name)) for profile in profiles]


def _link(profile: Path, path: Path) -> Outcome:
    if path.exists():
        return "already linked" if path.resolve() == profile.resolve() else "left alone"
    dangling = path.is_symlink()
    if dangling:
        path.unlink()
    path.symlink_to(profile.resolve(), target_is_directory=True)
    return "link replaced" if dangling else "linked"
