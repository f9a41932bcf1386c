"""The cost model against simulation and known formulas, and against the paper's numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ffn.errors import DataError
from ffn.model.network import build_network
from ffn.scaling.calibration import Calibration, read_calibration
from ffn.scaling.cost import Machine, Remedy, combinations, exposed_allreduce, predict, spread_for
from ffn.scaling.network import Line, Network
from ffn.scaling.paper import AS_PUBLISHED, EFFICIENCY, NODES, RATE, UNFUSED, explained, gradient_bytes, splits, theta
from ffn.scaling.spread import Lognormal, expected_maximum, expected_on_cores, expected_slowest

STEP = Lognormal(1.4, 0.1)
NETWORK = Network(latency_s=1e-5, bytes_per_s=1e9)
MACHINE = Machine(STEP, 0.0, NETWORK, (1_000_000, 3_000_000))


def draws(step: Lognormal, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return step.quantile(np.random.default_rng(seed).uniform(size=shape))


# --- the slowest of many


def test_lognormal_has_its_mean_and_spread():
    values = draws(STEP, (200_000,))
    assert values.mean() == pytest.approx(1.4, rel=2e-3)
    assert values.std() / values.mean() == pytest.approx(0.1, rel=1e-2)
    fitted = Lognormal.fit(values)
    assert (fitted.mean, fitted.cv) == (pytest.approx(1.4, rel=2e-3), pytest.approx(0.1, rel=1e-2))


@pytest.mark.parametrize(("workers", "dropped"), [(1, 0), (2, 0), (16, 0), (256, 0), (256, 5), (16, 15)])
def test_slowest_of_many_as_simulated(workers, dropped):
    simulated = np.sort(draws(STEP, (4000, workers)), axis=1)[:, workers - 1 - dropped].mean()
    assert expected_slowest(STEP, workers, dropped) == pytest.approx(simulated, rel=4e-3)


def test_slowest_of_1024_grows_as_extreme_value_theory_says():
    """Expected largest of 1024 standard normal numbers: 3.25 (Harter 1961 gives 3.2414 for 1000)."""
    nearly_normal = Lognormal(1.0, 1e-4)
    assert (expected_slowest(nearly_normal, 1000) - 1) / 1e-4 == pytest.approx(3.2414, rel=1e-3)


def test_nobody_left_is_refused():
    with pytest.raises(ValueError, match="at least one must stay"):
        expected_slowest(STEP, 4, 4)


def test_maximum_of_measured_times():
    assert expected_maximum([np.array([1.0, 3.0])]) == 2
    assert expected_maximum([np.array([1.0, 3.0]), np.array([1.0, 3.0])]) == 2.5
    assert expected_maximum([np.array([1.0, 2.0]), np.array([5.0])]) == 5
    random = np.random.default_rng(0)
    samples = [random.lognormal(0, 0.3, 500), random.lognormal(0.1, 0.2, 300), random.lognormal(0.2, 0.1, 100)]
    simulated = np.max([random.choice(s, 100_000) for s in samples], axis=0).mean()
    assert expected_maximum(samples) == pytest.approx(simulated, rel=3e-3)


def test_accumulation_evens_out_only_what_is_drawn_anew():
    summed = draws(STEP, (100_000, 4)).sum(axis=1)
    anew, lasting = STEP.summed(4, 0.0), STEP.summed(4, 1.0)
    assert (anew.mean, anew.cv) == (
        pytest.approx(summed.mean(), rel=1e-2),
        pytest.approx(summed.std() / summed.mean(), rel=1e-2),
    )
    assert (lasting.mean, lasting.cv) == (pytest.approx(5.6), pytest.approx(0.1))


def test_ranks_that_share_cores_conserve_work():
    steady, uneven = np.full((4, 10), 2.0), np.tile([1.0, 3.0], (4, 5))
    assert expected_on_cores(steady, steady / 2, cores=2) == pytest.approx(2.0)
    assert expected_on_cores(steady[:2], uneven[:2], cores=2) == pytest.approx(2.0)
    assert 2.0 < expected_on_cores(uneven, uneven / 2, cores=2) < expected_maximum(list(uneven))


def test_time_slices_of_shared_cores_are_no_uneven_work():
    """Two ranks a core whose steps take 1 s or 3 s by the clock, in turns, with 1 s of work each."""
    sliced = np.array([[1.0, 3.0] * 5, [3.0, 1.0] * 5] * 2)
    assert expected_on_cores(sliced, np.ones((4, 10)), cores=2) == pytest.approx(2.0)


# --- allreduce


def test_ring_and_tree():
    ring, tree = NETWORK, replace(NETWORK, algorithm="tree")
    assert ring.allreduce(1, 1e6) == 0
    assert ring.allreduce(4, 1e6) == pytest.approx(6 * 1e-5 + 2 * 3 / 4 * 1e6 / 1e9)
    assert tree.allreduce(1024, 0) == pytest.approx(20 * 1e-5)
    slow = replace(NETWORK, cycle_s=4e-3, coordinator_s=1e-6)
    assert slow.allreduce(1000, 0) - NETWORK.allreduce(1000, 0) == pytest.approx(2e-3 + 1e-3)


def test_line_through_measured_allreduces():
    sizes = np.array([1e3, 1e4, 1e5, 1e6])
    line = Line.fit(sizes, 2e-3 + 1e-9 * sizes)
    assert (line.fixed_s, line.per_byte_s) == (pytest.approx(2e-3), pytest.approx(1e-9))
    assert line.seconds(5e5) == pytest.approx(2.5e-3)
    assert Line.fit(sizes, np.array([4e-3, 3e-3, 2e-3, 1e-3])).per_byte_s == 0


# --- a step


def test_whole_step_as_simulated():
    workers = 64
    slowest = draws(STEP, (5000, workers)).max(axis=1).mean()
    found = predict(MACHINE, workers, Remedy("x", fused=True))
    assert found.step_s == pytest.approx(slowest + NETWORK.allreduce(workers, 4_000_000), rel=3e-3)
    assert found.fovs_per_s == pytest.approx(workers / found.step_s)
    assert found.efficiency == pytest.approx(found.fovs_per_s / (workers / 1.4))


def test_one_worker_is_its_own_measure():
    for remedy in combinations(AS_PUBLISHED):
        assert predict(theta(0.1), 1, remedy).efficiency == pytest.approx(1, abs=1e-3)


def test_dropped_workers_do_not_count():
    steady = replace(MACHINE, step=Lognormal(1.4, 1e-6))
    assert predict(steady, 100, Remedy("x", fused=True, dropped=0.05)).fovs_per_s == pytest.approx(
        0.95 * predict(steady, 100, Remedy("x", fused=True)).fovs_per_s, rel=1e-4
    )


def test_overlap_hides_all_but_the_last_message():
    one, two = (NETWORK.allreduce(8, size) for size in MACHINE.tensors)
    assert exposed_allreduce(MACHINE, 8, Remedy("x")) == pytest.approx(one + two)
    assert exposed_allreduce(MACHINE, 8, Remedy("x", overlapped=True)) == pytest.approx(two)
    short = replace(MACHINE, step=Lognormal(1e-3, 0.1))
    assert exposed_allreduce(short, 8, Remedy("x", overlapped=True)) == pytest.approx(one + two - 1e-3 * 2 / 3)


def test_remedies_help():
    machine = explained(0.0)
    base = predict(machine, 1024, AS_PUBLISHED).efficiency
    by_name = {remedy.name: predict(machine, 1024, remedy).efficiency for remedy in combinations(AS_PUBLISHED)}
    assert by_name["drop slowest 2%"] > base + 0.03
    assert by_name["accumulate 4"] > base + 0.08
    assert by_name["no fusion, no overlap"] < base
    lasting = predict(explained(1.0), 1024, Remedy("x", overlapped=True, accumulate=4)).efficiency
    assert lasting == pytest.approx(base, abs=0.01)


# --- the paper


def test_gradients_are_those_of_the_network():
    model = build_network(9, 32)
    assert sorted(gradient_bytes(9, 32)) == sorted(4 * int(np.prod(w.shape)) for w in model.trainable_variables)
    assert sum(gradient_bytes(9, 32)) == 4 * 472_353


def test_spread_that_explains_the_paper():
    machine = explained(0.0)
    found = predict(machine, NODES, AS_PUBLISHED)
    assert found.efficiency == pytest.approx(EFFICIENCY, abs=1e-4)
    assert found.fovs_per_s == pytest.approx(RATE, rel=2e-3)
    assert 0.05 < machine.step.cv < 0.2


def test_allreduce_alone_may_explain_it_too():
    by_remedy = {(split.network, split.remedy): split for split in splits()}
    assert by_remedy["as above", AS_PUBLISHED].lost_to_allreduce < 0.1
    unfused = by_remedy["as above", UNFUSED]
    assert unfused.lost_to_allreduce > 1
    assert unfused.cv is None
    assert spread_for(theta(), NODES, UNFUSED, EFFICIENCY) is None


# --- calibration


def calibration(ranks: int, alone: np.ndarray, allreduce_s: float, together: float) -> Calibration:
    sizes = {1000: np.full((2, 3), allreduce_s), 100_000: np.full((2, 3), allreduce_s)}
    gradients = np.full((2, 3), allreduce_s)
    return Calibration(ranks, 2, alone, alone, sizes, gradients, np.full((alone.shape[0], 5), together), 8, 50_000)


def test_prediction_does_not_know_the_synchronous_steps():
    alone = np.full((2, 2, 10), 0.1)
    a, b = (calibration(2, alone, 0.02, together) for together in (0.12, 0.24))
    assert a.predicted == b.predicted == pytest.approx(2 * 8 / 0.12)
    assert a.error == pytest.approx(0, abs=1e-9)
    assert b.error == pytest.approx(1)


def test_single_rank_needs_no_allreduce():
    alone = np.random.default_rng(0).uniform(0.09, 0.11, (2, 1, 10))
    assert calibration(1, alone, 99.0, 0.1).predicted == pytest.approx(8 / np.median(alone.mean(axis=2)))


def test_measurement_that_lacks_a_rank_is_refused(tmp_path: Path):
    facts = {"ranks": 2, "cores": 2, "fovs": 1, "message": 10, "alone": [[1.0]], "together": [[1.0]]}
    facts |= {"work": [[0.5]], "allreduce": {"4000": [[0.25]], "gradients": [[0.5]]}}
    (tmp_path / "rank-0000.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"lacks rank-0001.json"):
        read_calibration(tmp_path, 2)
    (tmp_path / "rank-0001.json").write_text(json.dumps({**facts, "alone": [[3.0]]}))
    found = read_calibration(tmp_path, 2)
    assert found.alone.tolist() == [[[1.0], [3.0]]]
    assert found.work.tolist() == [[[0.5], [0.5]]]
    assert found.gradients_s == 0.5
    assert list(found.allreduce) == [4000]
