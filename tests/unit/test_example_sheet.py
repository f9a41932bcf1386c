"""`ffn examples`."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_training import settings, write_volume

from ffn.cli import main
from ffn.config import parse_config
from ffn.prepare.run import prepare_training
from ffn.report.examples import Picture, coloured_section
from ffn.training.examples import ExampleSource, LaneStream


def config_file(folder: Path, **sections: object) -> Path:
    values = settings(folder)
    region = values["data"]["train"]
    values["data"]["train"] = {**region, "box": "0:20,0:36,0:36"}
    values["data"]["validation"] = {**region, "box": "20:36,0:36,0:36"}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**values, **sections}))
    return path


@pytest.mark.parametrize(("options", "rows"), [([], 3), (["--validation"], 2)])
def test_command_prepares_and_draws(tmp_path: Path, options: list[str], rows: int) -> None:
    config = config_file(tmp_path, augmentation={"contrast": 1.0, "misalignment": 1.0})
    output = tmp_path / "sheets" / "examples.png"
    assert main(["examples", "--config", str(config), "--count", "3", "--output", str(output), *options]) == 0
    with Image.open(output) as sheet:
        assert sheet.height / sheet.width == pytest.approx((1.5 * rows + 0.3) / (1.5 * 3 + 0.3), rel=0.01)
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 50
    assert (tmp_path / "results/tiny/prepare/done.json").exists()


def test_what_is_missing_or_no_number_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path)))
    command = ["examples", "--config", str(path), "--output", str(tmp_path / "x.png")]
    assert main([*command, "--validation"]) == 2
    assert "data.validation is empty" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--count", "0"])
    assert "not a number of examples" in capsys.readouterr().err


def test_object_is_green_unknown_red_and_the_rest_grey_as_stored(tmp_path: Path) -> None:
    write_volume(tmp_path / "volume.h5")
    with h5py.File(tmp_path / "volume.h5", "r+") as file:
        file["labels"][:, :, :18] = 0
    config = parse_config(settings(tmp_path, permutable_axes=[], reflectable_axes=[]))
    prepare_training(config)
    source = ExampleSource(config)
    examples = (source.load(LaneStream(0, 1), number) for number in range(50))
    example = next(one for one in examples if len(np.unique(one.labels[6])) == 3)
    picture = coloured_section(config, Picture("", example, 0))
    labels = example.labels[6]
    grey = (example.image[6] * 50 + 128) / 255
    plain = labels == np.float32(0.05)
    np.testing.assert_allclose(picture[plain], np.repeat(grey[plain][:, None], 3, axis=1), atol=1e-6)
    for value, strongest in ((0.95, 1), (-1, 0)):
        here = picture[labels == np.float32(value)]
        assert (here.argmax(axis=-1) == strongest).all()
