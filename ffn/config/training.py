"""The sections of config.yaml that decide how the network is trained."""

from typing import Literal

from pydantic import Field, model_validator

from ffn.config.base import Fraction, NotNegative, Positive, Section

Axis = Literal["z", "y", "x"]


class Training(Section):
    """Synchronous data-parallel training (`ffn train`).

    A *worker* is a rank or one of the virtual workers that a rank stands in for. One step is one update of the weights
    from workers x batch x accumulate fields of view.
    """

    steps: Positive = Field(1000, description="Updates of the weights, each from all workers.")
    batch: Positive = Field(1, description="Fields of view per worker and pass through the network.")
    ranks: Positive = Field(1, description="Horovod ranks that the workflow starts.")
    virtual_workers: Positive = Field(
        1, description="Workers that each rank stands in for, one after the other: large batches on a small machine."
    )
    accumulate: Positive = Field(1, description="Passes of every worker whose gradients are averaged for one update.")
    microbatch: Positive = Field(
        16, description="Fields of view that go through the network at once, at most; no influence on the result."
    )
    optimizer: Literal["sgd", "momentum", "adam", "adamw", "lars", "lamb"] = Field("adam", description="Update rule.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of adamw, lars and lamb.")
    learning_rate: float = Field(1e-3, gt=0, description="Rate of one worker, after the warm-up.")
    rate_scaling: Literal["none", "linear", "sqrt", "exponent", "auto"] = Field(
        "none",
        description="How the rate grows with the workers N: N, sqrt(N), N^rate_exponent, or auto: N up to 16 and "
        "4*sqrt(N) beyond (the paper's finding).",
    )
    rate_exponent: Fraction | None = Field(None, description="Exponent of rate_scaling `exponent`.")
    schedule: Literal["constant", "exponential", "cosine", "cyclic"] = Field(
        "constant",
        description="Rate over the steps after the warm-up: constant; times decay_factor every decay_steps; half a "
        "cosine down to 0; or triangles of 2*decay_steps between decay_factor times the rate and the rate.",
    )
    decay_steps: Positive = Field(1000, description="Period of the schedules `exponential` and `cyclic`.")
    decay_factor: float = Field(0.5, gt=0, lt=1, description="Factor of the schedules `exponential` and `cyclic`.")
    warmup_steps: NotNegative = Field(0, description="Linear ramp from 0.")
    gradient_clip: float | None = Field(
        0.7, gt=0, description="Each element of the mean gradient is clipped to +-this; empty = not."
    )
    gradient_clip_norm: float | None = Field(
        None, gt=0, description="The mean gradient is scaled down to this norm over all weights; empty = not."
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, which is judged and kept instead of them; empty = not.",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="A loss or gradient that is no number ends training, or the update is left out and counted."
    )
    max_skipped: Positive = Field(100, description="Updates left out, in all, after which `skip` also ends training.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Arithmetic of the convolutions; weights stay float32. For GPUs; slow on CPUs."
    )
    moves: Literal["fixed", "max_pred_moves", "no_step"] = Field(
        "fixed", description="Policy by which the field of view moves over a training example."
    )
    permutable_axes: Literal["auto"] | list[Axis] = Field(
        "auto", description="Axes that may be swapped; auto = all of equal voxel size, fov and deltas."
    )
    reflectable_axes: list[Axis] = Field(["z", "y", "x"], description="Axes that may be mirrored.")
    validate_every: Positive = Field(1000, description="Steps between two judgements on data.validation.")
    validation_examples: Positive = Field(64, description="Examples in the fixed set of data.validation.")
    checkpoint_every: Positive = Field(500, description="Steps between checkpoints.")
    keep_checkpoints: Positive = Field(3, description="Checkpoints kept.")
    log_every: Positive = Field(50, description="Steps averaged into one row of curves.csv.")

    @model_validator(mode="after")
    def _settings_agree(self) -> "Training":
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be fewer than steps {self.steps}.")
        if (self.rate_scaling == "exponent") != (self.rate_exponent is not None):
            raise ValueError("rate_exponent and rate_scaling `exponent` go together: give both or neither.")
        if self.weight_decay and self.optimizer not in ("adamw", "lars", "lamb"):
            raise ValueError(f"weight_decay has no effect with {self.optimizer}: use adamw, lars or lamb, or 0.")
        if self.gradient_clip is not None and self.gradient_clip_norm is not None:
            raise ValueError("gradient_clip and gradient_clip_norm exclude each other: set one of them to null.")
        return self


class Augmentation(Section):
    """Defects and changes of grey values in training examples, beyond axis swaps and mirrors (Lee et al. 2017).

    Each has the probability that it happens to an example; all are off by default. Sections are the volume's, along z;
    lengths are network voxels.
    """

    brightness: Fraction = Field(0.0, description="Probability of a change of brightness.")
    brightness_change: Fraction = Field(0.15, description="By how much at most: a part of the grey range, up or down.")
    contrast: Fraction = Field(0.0, description="Probability of a change of contrast.")
    contrast_change: Fraction = Field(0.15, description="By how much at most: a part of the contrast, up or down.")
    gamma: Fraction = Field(0.0, description="Probability of a gamma correction.")
    gamma_octaves: float = Field(1.0, ge=0, description="Gamma lies between 2 to the power of minus and plus this.")
    per_section: Fraction = Field(
        0.5, description="Probability that these three are drawn for every section and not once for the example."
    )
    missing_section: Fraction = Field(0.0, description="Probability of sections of one grey value.")
    out_of_focus: Fraction = Field(0.0, description="Probability of blurred sections.")
    out_of_focus_sigma: float = Field(2.0, gt=0, description="Largest standard deviation of the blur.")
    section_fraction: Fraction = Field(
        0.1, description="Largest part of the sections that are missing or out of focus; at least one is."
    )
    whole_section: Fraction = Field(
        0.5, description="Probability that such a section is hit as a whole and not in some quadrants."
    )
    misalignment: Fraction = Field(
        0.0, description="Probability that sections from some place on are shifted, image and labels alike."
    )
    misalignment_shift: Positive = Field(4, description="Largest shift along y and x.")
    misalignment_slip: Fraction = Field(0.5, description="Probability that the shift is of one section only.")
    elastic: Fraction = Field(0.0, description="Probability that the image is bent within its sections.")
    elastic_spacing: float = Field(12.0, gt=0, description="Distance of the points that are moved.")
    elastic_displacement: float = Field(
        1.0, ge=0, description="Standard deviation of their moves; labels stay, so keep it about a voxel."
    )


class Allreduce(Section):
    """How the ranks average their gradients (Horovod)."""

    controller: Literal["any", "gloo", "mpi"] = Field(
        "any", description="What Horovod must have been built with; any = what the launcher brings."
    )
    operation: Literal["average", "adasum"] = Field(
        "average", description="How gradients are combined; adasum (Maleki et al. 2020) needs an MPI build."
    )
    compression: Literal["none", "fp16"] = Field("none", description="What travels: float32, or half of it.")
    message: Literal["single", "per_weight"] = Field(
        "single",
        description="All gradients in one message, which adds in the same order in every run; or one a weight, which "
        "Horovod fuses by the two settings below.",
    )
    fusion_mb: float = Field(64.0, ge=0, description="Horovod's tensor fusion buffer (HOROVOD_FUSION_THRESHOLD).")
    cycle_ms: float = Field(1.0, gt=0, description="Horovod's wait for more tensors (HOROVOD_CYCLE_TIME).")
    stall_s: float = Field(
        120.0,
        gt=0,
        description="A rank that the others wait for longer than this ends the run; ten times as long before the first "
        "update.",
    )


FREE = frozenset({"checkpoint_every", "keep_checkpoints", "microbatch"})
"""Settings of `Training` that change nothing in its result."""

ADDING = ("operation", "compression", "message")
"""Settings of `Allreduce` that change what is learned; the others only change how fast."""


class Threads(Section):
    """Threads and their places, for training. `ffn train --autotune` finds the best on a node.

    The defaults are what was best, or as good as the best, where it was measured (docs/guides/speed.md). Empty values
    leave the environment as the launcher set it. TensorFlow's own packages hold no OpenMP: there the `omp` and `kmp`
    keys have no effect; they are for builds whose oneDNN runs on OpenMP, as on Theta.
    """

    intra_op: NotNegative = Field(
        0,
        description="Threads inside one operation; 0 = the rank's share of the cores, or TF_NUM_INTRAOP_THREADS where "
        "that is set.",
    )
    inter_op: NotNegative = Field(
        0,
        description="Operations side by side; 0 = as many as cores, or TF_NUM_INTEROP_THREADS. 1 cost a tenth of the "
        "speed.",
    )
    onednn: bool | None = Field(
        None,
        description="oneDNN's convolutions on CPUs (TF_ENABLE_ONEDNN_OPTS); empty = on, unless the environment says "
        "otherwise. Without, training was 3 to 7 times slower.",
    )
    omp: NotNegative = Field(0, description="OMP_NUM_THREADS; 0 = as it is.")
    kmp_blocktime: NotNegative | Literal["infinite"] | None = Field(
        None, description="KMP_BLOCKTIME: ms that an idle OpenMP thread spins before it sleeps. The paper's best: 0."
    )
    kmp_affinity: str | None = Field(
        None, description="KMP_AFFINITY, such as `granularity=fine,compact,1,0`: where OpenMP threads run."
    )
    pin: bool = Field(
        False,
        description="Keep each rank on its own cores: for horovodrun, which binds nothing, on machines with several "
        "sockets. No difference on 2 cores.",
    )
