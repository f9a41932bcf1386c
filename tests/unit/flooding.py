"""A slow, literal flood fill and small stand-in networks, to compare the real one with."""

import numpy as np
from scipy import ndimage

from ffn.inference.canvas import Canvas
from ffn.inference.drive import drive
from ffn.inference.options import FloodOptions


def options(**changes) -> FloodOptions:
    values = {
        "fov": (9, 9, 9),
        "deltas": (2, 2, 2),
        "init": np.float32(2.944439),
        "pad": np.float32(-2.944439),
        "move": np.float32(2.1972246),
        "segment": np.float32(0.4054651),
        "min_segment_size": 100,
        "min_boundary_dist": (1, 1, 1),
        "disco": 0.0,
    }
    return FloodOptions(**{**values, **changes})


class SmallNetwork:
    """A deterministic float32 update of the map from the image and the map around each voxel."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.kernel = rng.normal(0, 0.25, (3, 3, 3)).astype(np.float32)
        self.gain = np.float32(rng.uniform(2.0, 5.0))
        self.offset = np.float32(rng.uniform(-1.2, 0.1))
        self.calls = 0

    def __call__(self, image, object_map):
        self.calls += 1
        context = ndimage.uniform_filter(np.tanh(object_map), 3, mode="constant", output=np.float32)
        texture = ndimage.convolve(np.ascontiguousarray(image), self.kernel, mode="constant", output=np.float32)
        return np.float32(0.4) * object_map + self.gain * (image + self.offset) + context + np.float32(2.0) + texture


class Batches:
    """A function of one field of view as a network that is asked for batches; `sizes` are those that came."""

    def __init__(self, network, batch_size=1) -> None:
        self.network, self.batch_size, self.sizes, self.seconds = network, batch_size, [], 0.0

    def start(self, looks):
        self.sizes.append(len(looks))
        # The looks may change before the answers are fetched.
        copies = [(look.image.copy(), look.object_map.copy()) for look in looks]
        return lambda: [self.network(*copy) for copy in copies]


def flooded(image, chosen: FloodOptions, seeds, network, **more) -> Canvas:
    """A canvas whose objects have been grown."""
    canvas = Canvas(image, chosen, **more)
    drive([canvas.segment_all(seeds)], Batches(network))
    return canvas


class ConnectedNetwork:
    """Says yes to bright voxels that are connected, within the field of view, to what the map says yes to."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image, object_map):
        self.calls += 1
        pieces, _ = ndimage.label(image > 0)
        reached = np.unique(pieces[(object_map > 0) & (pieces > 0)])
        return np.where(np.isin(pieces, reached), np.float32(4), np.float32(-4)).astype(np.float32)


def blobs(seed: int, shape=(30, 32, 34)):
    """float32 grey values: smooth cells between darker walls."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return (noise / noise.std()).astype(np.float32)


def literal_flood(image, seeds, o: FloodOptions, network, no_move=None, no_seed=None):
    """The algorithm step by step as it is described, with whole-volume arrays and no shortcuts."""
    no_move, no_seed = (np.zeros(image.shape, bool) if mask is None else mask for mask in (no_move, no_seed))
    shape, margin = np.array(image.shape), np.array(o.fov) // 2
    segmentation = np.zeros(image.shape, np.int32)
    count = dict.fromkeys(
        ("skip_threshold", "skip_invalid_pos", "skip_restricted_pos", "seed_got_too_weak", "fovs", "objects_started"), 0
    )
    count.update(objects_weak=0, objects_small=0, seeds_too_close=0)
    origins, overlaps = [], {}

    def fits_and_free(p):
        ok = np.all(np.array(p) - margin >= 0) and np.all(np.array(p) + margin < shape) and segmentation[p] <= 0
        count["skip_invalid_pos"] += not ok
        return ok

    for p in map(tuple, np.asarray(seeds).tolist()):
        if not fits_and_free(p):
            continue
        if no_move[p] or no_seed[p]:
            count["skip_restricted_pos"] += 1
            continue
        box = tuple(slice(max(c - d, 0), c + d + 1) for c, d in zip(p, o.min_boundary_dist, strict=True))
        if np.any(segmentation[box] > 0):
            segmentation[p] = -1
            count["seeds_too_close"] += 1
            continue
        count["objects_started"] += 1
        canvas = np.full(image.shape, np.nan, np.float32)
        canvas[p] = o.init
        queue, done, visited = [p], set(), []

        def cell(q, start=p):
            return tuple((a - s + d // 2) // max(d, 1) for a, s, d in zip(q, start, o.deltas, strict=True))

        while queue:
            q = queue.pop(0)
            if cell(q) in done:
                continue
            if not canvas[q] >= o.move:
                count["skip_threshold"] += 1
                continue
            if not fits_and_free(q):
                continue
            if no_move[q]:
                count["skip_restricted_pos"] += 1
                continue
            if canvas[p] < o.move:
                count["seed_got_too_weak"] += 1
                break
            fov = tuple(slice(c - m, c + m + 1) for c, m in zip(q, margin, strict=True))
            old = canvas[fov].copy()
            logits = network(image[fov].copy(), np.where(np.isnan(old), o.pad, old).astype(np.float32))
            if o.disco >= 0 and np.mean(logits >= o.move) > o.disco:
                keep = (old < 0) & (logits > old)
                logits[keep] = old[keep]
            canvas[fov] = logits
            visited.append(q)
            done.add(cell(q))
            moves = set()
            for axis in range(3):
                for sign in (-1, 1):
                    if o.deltas[axis] == 0:
                        continue
                    face = [slice(m - d, m + d + 1) for m, d in zip(margin, o.deltas, strict=True)]
                    face[axis] = slice(margin[axis] + sign * o.deltas[axis], margin[axis] + sign * o.deltas[axis] + 1)
                    plane = logits[tuple(face)]
                    at = np.unravel_index(np.argmax(plane), plane.shape)
                    offset = [int(i) - d for i, d in zip(at, o.deltas, strict=True)]
                    offset[axis] = sign * o.deltas[axis]
                    if plane[at] >= o.move:
                        moves.add((float(plane[at]), tuple(offset)))
            for _, offset in sorted(moves, reverse=True):
                queue.append(tuple(a + b for a, b in zip(q, offset, strict=True)))
        count["fovs"] += len(visited)
        if not visited or canvas[p] < o.move:
            count["objects_weak"] += 1
            segmentation[p] = -1
            continue
        raw = np.nan_to_num(canvas, nan=-np.inf) >= o.segment
        new = raw & (segmentation <= 0)
        if new.sum() < o.min_segment_size:
            count["objects_small"] += 1
            segmentation[p] = -1
            continue
        ids, counts = np.unique(segmentation[raw & (segmentation > 0)], return_counts=True)
        number = len(origins) + 1
        segmentation[new] = number
        overlaps[number] = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        origins.append((number, p, len(visited), int(new.sum())))
    segmentation[segmentation < 0] = 0
    return segmentation, origins, overlaps, count
