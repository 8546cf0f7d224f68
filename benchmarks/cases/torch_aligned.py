"""The aligned search by FFT correlation in PyTorch: what one would write without our projection."""

import numpy as np
import torch
from torch.nn import functional

from deepssim_jax.ops import search_grid
from deepssim_jax.ops.search_grid import SearchGrid


def _places(grid: SearchGrid, first: int, frame: int) -> torch.Tensor:
    """[poses, f, f, 2]: where every pose reads an image, x and y on [-1, 1]."""
    axis = torch.arange(first, first + frame) - (grid.size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle, scale = torch.tensor(grid.poses).T[..., None, None]
    c, s = scale * angle.cos(), scale * angle.sin()
    return torch.stack([s * y + c * x, c * y - s * x], -1) / ((grid.size - 1) / 2)


def best_correlations(
    queries: np.ndarray, references: np.ndarray, grid: SearchGrid, *, device: str = "cpu"
) -> np.ndarray:
    """float32 [n, m]: the largest correlation inside the disc over the grid.

    Args:
      queries: [n, s, s] low-resolution images.
      references: [m, s, s] likewise.
      grid: the transformations.
      device: where PyTorch computes.
    """
    with torch.device(device):
        return _best(queries, references, grid)


def _best(queries: np.ndarray, references: np.ndarray, grid: SearchGrid) -> np.ndarray:
    mask = torch.tensor(search_grid.disc(grid))
    inside = torch.tensor(references)[:, mask]
    inside = inside - inside.mean(1, keepdim=True)
    inside = inside / inside.norm(dim=1, keepdim=True)
    reach = grid.shift_pixels
    # The disc in the frame of the turned images; products with all shifts are then correlations.
    rows, columns = torch.nonzero(mask, as_tuple=True)
    first, frame = int(rows.min()) - reach, int(rows.max() - rows.min()) + 1 + 2 * reach
    rows, columns = rows - first, columns - first
    places = _places(grid, first, frame)
    placed = torch.zeros(len(references), frame, frame)
    placed[:, rows, columns] = inside
    window = torch.zeros(frame, frame)
    window[rows, columns] = 1.0
    spectra, window_spectrum = torch.fft.rfft2(placed).conj(), torch.fft.rfft2(window).conj()

    # The shifts of the grid: a circular correlation has the negative ones at its end.
    ends = (slice(None, reach + 1), slice(-reach, None))
    corners = [(a, b) for a in ends for b in ends]

    out = np.zeros((len(queries), len(references)), np.float32)
    for q, query in enumerate(queries):
        flips = np.stack([query, query[:, ::-1], query[::-1], query[::-1, ::-1]])
        versions = functional.grid_sample(
            torch.tensor(flips).repeat_interleave(len(places), 0)[:, None],
            places.repeat(4, 1, 1, 1),
            padding_mode="border",
            align_corners=True,
        )[:, 0]
        spectrum = torch.fft.rfft2(versions)
        size = (frame, frame)
        total = torch.fft.irfft2(spectrum * window_spectrum, s=size)
        squares = torch.fft.irfft2(torch.fft.rfft2(versions**2) * window_spectrum, s=size)
        inverse = (squares - total**2 / window.sum()).clamp(min=1e-12).rsqrt()
        best = torch.full((len(references),), -2.0)
        for v in range(len(versions)):
            for first in range(0, len(references), 512):
                part = spectra[first : first + 512]
                product = torch.fft.irfft2(spectrum[v] * part, s=size)
                place = slice(first, first + len(part))
                for rows, columns in corners:
                    found = product[:, rows, columns] * inverse[v, rows, columns]
                    best[place] = torch.maximum(best[place], found.amax((1, 2)))
        out[q] = best.cpu().numpy()
    return out
