"""Image registration: align a picture with the training picture that it may be a copy of.

A memorising model gives its pictures back mirrored, cropped or shifted, the way training augmented
them. So every picture is moved and scaled until it coincides with a training picture: by a coarse
search over all of them, then by Gauss-Newton on the best candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image
    from torch import Tensor

SIDE = 64  # pixels of a reduced picture
SCALES = 0.9, 0.95, 1.0  # of the coarse search: a crop shows less of the same
SHIFTS = -2, -1, 0, 1, 2  # of the coarse search, in steps of 1/32 of the side
MAX_SCALE, MAX_SHIFT = 0.15, 0.25  # bounds of the pose; the shift in half sides
CANDIDATES = 2  # training pictures with which a picture is aligned
ROUNDS = 5  # of Gauss-Newton
BATCH = 64  # pairs at once
BLANK = 8  # largest range of a channel of a blank picture, 0..255
WEAK = 0.02  # gradient magnitude below which an edge has less weight


@dataclass(frozen=True)
class Alignment:
    """Similarity of a picture and a training picture after registration."""

    number: int  # of the training picture
    likeness: float  # correlation of the pixels' gradients, -1..1
    outlines: float  # correlation of edge directions, whatever the colours, -1..1


def reduced(image: Image.Image) -> ndarray:
    """uint8 SIDE,SIDE,3 of an RGB picture."""
    import numpy as np
    from PIL.Image import Resampling

    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Resampling.BOX))


def is_blank(picture: ndarray) -> bool:
    """Whether a reduced picture (uint8 SIDE,SIDE,3) has a single colour, or nearly."""
    return int((picture.max((0, 1)) - picture.min((0, 1))).max()) <= BLANK


class Registration:
    """Aligns pictures with training pictures."""

    def __init__(self, training: ndarray):
        """`training`: uint8 M,SIDE,SIDE,3."""
        import torch

        self.training = training
        maps = [_edge_map(_floats(training[i : i + BATCH])) for i in range(0, len(training), BATCH)]
        self.maps = _unit(torch.cat(maps))  # M,2048

    def aligned(
        self, pictures: ndarray, others: ndarray, exclude: bool = False
    ) -> list[list[Alignment]]:
        """Alignments of each picture (uint8 N,SIDE,SIDE,3), the most similar first. `others`, int
        N: a further candidate of each picture; with `exclude`, the picture's own number, which is
        no candidate."""
        pairs = []
        for number, picture in enumerate(_floats(pictures)):
            starts = self._starts(picture, int(others[number]), exclude)
            pairs += [(number, *start) for start in starts]
        found: list[list[Alignment]] = [[] for _ in pictures]
        for first in range(0, len(pairs), BATCH):
            batch = pairs[first : first + BATCH]
            for (number, *_), each in zip(batch, self._register(pictures, batch), strict=True):
                found[number].append(each)
        return [sorted(several, key=lambda each: -max(each.likeness, 0)) for several in found]

    def _starts(self, picture: Tensor, other: int, exclude: bool) -> list[tuple]:
        """(training picture, mirrored, scale, shift x, shift y) by the coarse search."""
        poses = list(product((False, True), SCALES, SHIFTS, SHIFTS))
        best = (_unit(_moved_maps(picture)) @ self.maps.T).max(0)
        values = best.values
        if exclude:
            values[other] = -2.0
        numbers = values.topk(min(CANDIDATES, len(values) - exclude)).indices.tolist()
        if not exclude and other not in numbers:
            numbers.append(other)
        found = []
        for number in numbers:
            mirrored, scale, down, right = poses[best.indices[number]]
            found.append((number, mirrored, scale, right / 16, down / 16))
        return found

    def _register(self, pictures: ndarray, pairs: list[tuple]) -> list[Alignment]:
        import torch

        numbers = [pair[1] for pair in pairs]
        ours = _floats(pictures[[pair[0] for pair in pairs]])
        mirrored = torch.tensor([pair[2] for pair in pairs])[:, None, None, None]
        ours = torch.where(mirrored, ours.flip(-1), ours)
        theirs = _floats(self.training[numbers])
        start = torch.tensor([pair[3:] for pair in pairs], dtype=torch.float32)
        moved = _gauss_newton(ours, theirs, start)
        # The start if Gauss-Newton diverged.
        similarity = torch.maximum(_likeness(ours, theirs, start), _likeness(ours, theirs, moved))
        return [
            Alignment(number, *row)
            for number, row in zip(numbers, similarity.tolist(), strict=True)
        ]


def _moved_maps(picture: Tensor) -> Tensor:
    """Edge maps of a picture (3,SIDE,SIDE) in all poses: mirrored or not, scaled and shifted."""
    import torch

    poses = list(product((False, True), SCALES))
    both = torch.stack([picture.flip(-1) if mirrored else picture for mirrored, _ in poses])
    scales = torch.tensor([1 / scale for _, scale in poses])
    maps = _edge_map(_warped(both, torch.stack([scales, scales * 0, scales * 0], 1)))
    maps = maps.unflatten(1, (2, SIDE // 2, SIDE // 2))
    shifted = [maps.roll((down, right), (2, 3)) for down, right in product(SHIFTS, SHIFTS)]
    return torch.stack(shifted, 1).flatten(2).flatten(0, 1)


def _gauss_newton(ours: Tensor, theirs: Tensor, pose: Tensor) -> Tensor:
    """The pose N,3 (scale, shift x, shift y) at which `theirs` differ least from `ours`."""
    import torch

    ours, theirs = _blurred(ours, 1.5), _blurred(theirs, 1.5)
    right, down = _gradients(theirs)
    stacked = torch.cat([theirs, right * SIDE / 2, down * SIDE / 2], 1)
    xs, ys = _places()
    damping = 0.01 * torch.eye(3)
    for _ in range(ROUNDS):
        inside = _inside(pose)
        there, right, down = _warped(stacked, pose).split(3, 1)
        f, g = _centred(ours, inside), _centred(there, inside)
        gain = (inside * f * g).sum((1, 2, 3)) / ((inside * g * g).sum((1, 2, 3)) + 1e-6)
        gain = gain.clamp(0.5, 2)[:, None, None, None]
        slopes = [right * xs + down * ys, right, down]
        jacobian = torch.stack([_centred(gain * each, inside) for each in slopes], 1)
        weighted = (jacobian * inside[:, None]).flatten(2)
        normal = weighted @ jacobian.flatten(2).mT + damping
        step = torch.linalg.solve(normal, weighted @ (f - gain * g).flatten(1)[..., None])
        pose = _bounded(pose + step[..., 0].clamp(-0.05, 0.05))
    return pose


def _likeness(ours: Tensor, theirs: Tensor, pose: Tensor) -> Tensor:
    """N,2: correlation of gradients and of edge directions, where both have pixels."""
    import torch

    inside = _inside(pose)
    inside[..., [0, 1, -2, -1], :] = inside[..., [0, 1, -2, -1]] = 0
    both = _blurred(ours, 0.8), _blurred(_warped(theirs, pose), 0.8)
    one, other = (torch.cat(_gradients(each), 1) for each in both)
    gradients = _correlation(one, other, inside)
    outlines = _correlation(_edges(both[0], WEAK), _edges(both[1], WEAK), inside)
    return torch.stack([gradients, outlines], 1).nan_to_num(-1.0)


def _correlation(one: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    products = [(inside * a * b).sum((1, 2, 3)) for a, b in ((one, other), (one, one))]
    return products[0] / (products[1] * (inside * other * other).sum((1, 2, 3)) + 1e-9).sqrt()


def _floats(pictures: ndarray) -> Tensor:
    """uint8 N,H,W,3 -> float N,3,H,W in 0..1."""
    import torch

    return torch.tensor(pictures.copy()).permute(0, 3, 1, 2).float() / 255


def _edge_map(pictures: Tensor) -> Tensor:
    """Edge directions on a coarse grid: float N,2048."""
    import torch.nn.functional as F

    return _edges(F.avg_pool2d(_blurred(pictures, 1.5), 2), WEAK / 4).flatten(1)


def _edges(pictures: Tensor, weak: float) -> Tensor:
    """N,2,H,W: the doubled angle of the gradient, which is the same whichever side is brighter."""
    import torch

    right, down = _gradients(pictures)
    doubled = torch.stack([(right**2 - down**2).sum(1), (2 * right * down).sum(1)], 1)
    return doubled / (doubled.norm(dim=1, keepdim=True) + weak)


def _gradients(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences to the right and down, of the picture's size."""
    import torch.nn.functional as F

    around = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    right = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
    return right / 2, (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """Gaussian blur."""
    import torch
    import torch.nn.functional as F

    reach, channels = int(3 * sigma + 0.5), pictures.shape[1]
    weights = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(channels, 1, 1, -1)
    around = F.pad(pictures, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(around, weights, groups=channels), weights.mT, groups=channels)


def _warped(pictures: Tensor, pose: Tensor) -> Tensor:
    """Pictures sampled at scale * x + shift, x in -1..1."""
    import torch
    import torch.nn.functional as F

    scale, right, down = pose.T
    zero = torch.zeros_like(scale)
    affine = torch.stack([scale, zero, right, zero, scale, down], 1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _inside(pose: Tensor) -> Tensor:
    """N,1,SIDE,SIDE: 1 where the warped picture has pixels, else 0."""
    xs, ys = _places()
    scale, right, down = (each[:, None, None] for each in pose.T)
    across = ((scale * xs + right).abs() < 0.97) & ((scale * ys + down).abs() < 0.97)
    return across[:, None].float()


def _places() -> tuple[Tensor, Tensor]:
    """x and y of the pixel centres, in -1..1."""
    import torch

    line = (torch.arange(SIDE) * 2 + 1) / SIDE - 1
    ys, xs = torch.meshgrid(line, line, indexing="ij")
    return xs, ys


def _centred(pictures: Tensor, inside: Tensor) -> Tensor:
    """Minus their mean over the pixels inside."""
    count = inside.sum((2, 3), keepdim=True).clamp(min=1)
    return pictures - (pictures * inside).sum((2, 3), keepdim=True) / count


def _bounded(pose: Tensor) -> Tensor:
    import torch

    scale = pose[:, :1].clamp(1 - MAX_SCALE, 1 + MAX_SCALE)
    return torch.cat([scale, pose[:, 1:].clamp(-MAX_SHIFT, MAX_SHIFT)], 1)


def _unit(rows: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.normalize(rows, dim=1)
