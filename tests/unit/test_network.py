import numpy as np
import pytest

from ffn.model.logits import expit, logit
from ffn.model.network import build_network, layer_names, weight_count


@pytest.mark.parametrize(("depth", "features", "weights"), [(9, 32, 472_353), (12, 32, 638_433), (20, 32, 1_081_313)])
def test_weight_counts_of_the_published_networks(depth: int, features: int, weights: int) -> None:
    assert weight_count(depth, features) == weights
    assert build_network(depth, features).count_params() == weights


@pytest.mark.parametrize(("depth", "features", "fov"), [(2, 4, (9, 9, 9)), (5, 16, (17, 17, 17)), (3, 8, (5, 33, 33))])
def test_any_depth_width_and_fov(depth: int, features: int, fov: tuple[int, int, int]) -> None:
    model = build_network(depth, features)
    assert model.count_params() == weight_count(depth, features)
    image = np.zeros((2, *fov, 1), np.float32)
    assert model([image, image]).shape == image.shape


def test_layers_are_named_in_order() -> None:
    convolutions = [layer.name for layer in build_network(3, 4).layers if layer.name.startswith("conv")]
    assert convolutions == ["conv0_a", "conv0_b", "conv1_a", "conv1_b", "conv2_a", "conv2_b", "conv_lom"]
    assert convolutions == layer_names(3)


def test_output_is_the_map_plus_an_update() -> None:
    model = build_network(3, 4)
    model.get_layer("conv_lom").kernel.assign(np.zeros((1, 1, 1, 4, 1)))
    model.get_layer("conv_lom").bias.assign([0.25])
    random = np.random.default_rng(0)
    image, object_map = random.normal(size=(2, 1, 7, 7, 7, 1)).astype(np.float32)
    np.testing.assert_array_equal(model([image, object_map]).numpy(), object_map + np.float32(0.25))


def test_image_is_the_first_channel() -> None:
    model = build_network(2, 4)
    kernel = model.get_layer("conv0_a").kernel.numpy()
    kernel[:, :, :, 0] = 0
    model.get_layer("conv0_a").kernel.assign(kernel)
    random = np.random.default_rng(0)
    one, other, object_map = random.normal(size=(3, 1, 7, 7, 7, 1)).astype(np.float32)
    np.testing.assert_array_equal(model([one, object_map]).numpy(), model([other, object_map]).numpy())


def test_start_is_glorot_uniform_and_decided_by_the_seed() -> None:
    one, same, other = (build_network(3, 16, seed=seed).get_weights() for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    kernels = dict(zip(layer_names(3), range(0, len(one), 2), strict=True))
    closing = [kernels.pop(f"conv{module}_b") for module in (1, 2)]
    for index in kernels.values():
        *_, inputs, outputs = one[index].shape
        volume = one[index].size // (inputs * outputs)
        limit = np.sqrt(6 / (volume * (inputs + outputs)))
        assert np.abs(one[index]).max() <= limit
        assert np.abs(one[index]).max() > 0.7 * limit
        assert not np.array_equal(one[index], other[index])
    assert not any(one[i].any() for i in range(len(one)) if i not in kernels.values())
    assert not np.array_equal(one[kernels["conv1_a"]], one[kernels["conv2_a"]])
    assert all(one[i].shape == (3, 3, 3, 16, 16) for i in closing)


def test_residual_modules_start_as_the_identity() -> None:
    random = np.random.default_rng(1)
    image, object_map = (random.normal(size=(1, 9, 9, 9, 1)).astype(np.float32) for _ in range(2))
    deep, shallow = build_network(5, 8, seed=3), build_network(2, 8, seed=3)
    for name in ("conv0_a", "conv0_b", "conv_lom"):
        deep.get_layer(name).set_weights(shallow.get_layer(name).get_weights())
    np.testing.assert_array_equal(deep([image, object_map]), shallow([image, object_map]))


def test_logits() -> None:
    assert logit(0.5) == 0
    assert logit(0.9) == np.float32(2.1972246)
    assert logit(0.05).dtype == np.float32
    assert logit(0.05) == -logit(0.95)
    values = np.array([-1000, -2, 0, 2, 1000], np.float32)
    np.testing.assert_allclose(expit(values), [0, 0.11920292, 0.5, 0.88079708, 1], rtol=1e-6)
    assert expit(logit(0.3)) == pytest.approx(0.3)
