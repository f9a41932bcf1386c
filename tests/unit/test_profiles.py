"""Linking the profiles into Snakemake's folder."""

from pathlib import Path

import pytest
import yaml

from ffn.cli import main
from ffn.cluster.profiles import link_profiles, shipped_profiles, snakemake_profiles


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "home" / "snakemake"


def test_shipped_profiles_are_linked_once(target, capsys):
    for outcome in ("linked", "already linked"):
        assert main(["profiles", "link", "--to", str(target)]) == 0
        assert f"theta {outcome}\n" in capsys.readouterr().out
    assert (target / "theta").resolve() == shipped_profiles() / "theta"
    assert (target / "local" / "config.yaml").is_file()


@pytest.mark.parametrize("profile", sorted(path.name for path in shipped_profiles().iterdir() if path.is_dir()))
def test_markers_stay_where_a_job_fails(profile):
    """A stage writes its marker last: where a job fails behind that, such as by a kill of its shell, all is done."""
    values = yaml.safe_load((shipped_profiles() / profile / "config.yaml").read_text())
    assert values["keep-incomplete"]
    assert values["rerun-incomplete"]


def test_foreign_profile_is_left_alone(target, capsys):
    (target / "theta").mkdir(parents=True)
    (target / "theta" / "config.yaml").write_text("jobs: 1\n")
    assert main(["profiles", "link", "--to", str(target)]) == 0
    assert (target / "theta" / "config.yaml").read_text() == "jobs: 1\n"
    assert f"snakemake --profile {shipped_profiles() / 'theta'}" in capsys.readouterr().out


def test_link_to_a_removed_checkout_is_replaced(target, tmp_path):
    target.mkdir(parents=True)
    (target / "theta").symlink_to(tmp_path / "gone")
    outcomes = {link.name: link.outcome for link in link_profiles(shipped_profiles(), target)}
    assert outcomes["theta"] == "link replaced"
    assert (target / "theta").resolve() == shipped_profiles() / "theta"


def test_folder_without_profiles_is_an_error(tmp_path, capsys):
    assert main(["profiles", "link", "--from", str(tmp_path), "--to", str(tmp_path / "t")]) == 2
    assert "There are no profiles" in capsys.readouterr().err


def test_target_is_where_snakemake_looks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert snakemake_profiles() == tmp_path / "snakemake"
