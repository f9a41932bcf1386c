"""The convolutional network that updates an object map from the image around it.

One input module and `depth - 1` residual modules of two 3x3x3 convolutions each, then a 1x1x1 convolution that sums
the features up to the update of the map:

    image ─┐
           ├─ conv0_a, ReLU, conv0_b ─┬─ ReLU, conv1_a, ReLU, conv1_b ─(+)─ ... ─ ReLU, conv_lom ─(+)─ updated map
    map ───┤                          └────────────────────────────────┘                           │
           └───────────────────────────────────────────────────────────────────────────────────────┘

All convolutions keep the size by zero padding, and that padding is part of the function: the network has to be
evaluated on whole fields of view. (Januszewski et al. 2018; with depth 9 and 32 features Dong et al. 2019.)
"""

import keras

KERNEL = (3, 3, 3)


def weight_count(depth: int, features: int) -> int:
    """Trainable weights of `build_network(depth, features)`, counted from the architecture."""
    first = 27 * 2 * features + features
    hidden = (2 * depth - 1) * (27 * features * features + features)
    return first + hidden + features + 1


def layer_names(depth: int) -> list[str]:
    """The convolutions in order: conv0_a, conv0_b, conv1_a, ..., conv_lom."""
    return [f"conv{module}_{half}" for module in range(depth) for half in "ab"] + ["conv_lom"]


def build_network(depth: int, features: int, seed: int = 0, precision: str = "float32") -> keras.Model:
    """A new network for fields of view of any size.

    Inputs `image` (normalised grey values) and `object_map` (logits), both float32 [batch, z, y, x, 1]; output the
    updated logits, same shape. Kernels start Glorot uniform, drawn from `seed`, but the second of each residual
    module at zero: every module begins as the identity, which lets deep networks learn from the first steps on.
    Biases start at zero. With `precision` bfloat16 or float16 the 3x3x3 convolutions compute in that, on weights kept
    in float32; the update of the map is float32 again.
    """
    if depth < 2 or features < 1:
        raise ValueError(f"A network needs depth >= 2 and features >= 1, not {depth} and {features}.")

    arithmetic = "float32" if precision == "float32" else f"mixed_{precision}"
    closing = {f"conv{module}_b" for module in range(1, depth)}

    def convolution(name: str, filters: int, kernel: tuple[int, int, int], activation: str | None) -> keras.Layer:
        glorot = keras.initializers.GlorotUniform(seed=seed * 10_007 + names.index(name))
        initial = keras.initializers.Zeros() if name in closing else glorot
        return keras.layers.Conv3D(
            filters,
            kernel,
            padding="same",
            activation=activation,
            kernel_initializer=initial,
            dtype="float32" if name == "conv_lom" else arithmetic,
            name=name,
        )

    names = layer_names(depth)
    image = keras.Input((None, None, None, 1), name="image", dtype="float32")
    object_map = keras.Input((None, None, None, 1), name="object_map", dtype="float32")
    x = keras.layers.Concatenate(name="image_and_map")([image, object_map])
    x = convolution("conv0_a", features, KERNEL, "relu")(x)
    x = convolution("conv0_b", features, KERNEL, None)(x)
    for module in range(1, depth):
        skip = x
        x = keras.layers.ReLU(dtype=arithmetic, name=f"relu{module}")(x)
        x = convolution(f"conv{module}_a", features, KERNEL, "relu")(x)
        x = convolution(f"conv{module}_b", features, KERNEL, None)(x)
        x = keras.layers.Add(dtype=arithmetic, name=f"residual{module}")([x, skip])
    x = keras.layers.ReLU(name="relu_lom")(x)
    update = convolution("conv_lom", 1, (1, 1, 1), None)(x)
    updated = keras.layers.Add(name="updated_map")([object_map, update])
    model = keras.Model([image, object_map], updated, name="flood_filling_network")
    if model.count_params() != weight_count(depth, features):
        raise AssertionError(f"{model.count_params()} weights instead of {weight_count(depth, features)}")
    return model
