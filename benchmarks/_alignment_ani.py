"""What ANI's networks see: geometries of small molecules, and the features of their atoms (Smith et
al. 2017)."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _real_networks import PACKAGES, fetch

ELEMENTS = "HCNO"
PACKAGES["ase"] = (
    "3.29.0",
    "LGPL-2.1-or-later",
)  # geometries of the G2 set; only unpacked, as the others are

_RADII, _WIDE = np.linspace(0.9, 0.9 + 15 * 0.26875, 16), 5.2
_MEANS, _ANGLES, _NARROW = (
    np.array([0.9, 1.55, 2.2, 2.85]),
    np.arange(8) * np.pi / 8 + np.pi / 16,
    3.5,
)
_PAIRS = {pair: i for i, pair in enumerate(itertools.combinations_with_replacement(range(4), 2))}

Molecule = tuple[list[int], np.ndarray]
"""Elements as indices of ``ELEMENTS``, and positions ``(atoms, 3)`` in Angstrom."""

Molecules = list[Molecule]


def molecules(folder: Path, closed_shell: bool) -> Molecules:
    """All molecules of G2 of two atoms or more that have no elements but H, C, N and O.

    Args:
        closed_shell: leave out those with unpaired electrons.
    """
    sys.path.insert(0, str(fetch("ase", folder)))
    from ase.build import molecule
    from ase.collections import g2

    out = []
    for name in g2.names:
        found = molecule(name)
        symbols = found.get_chemical_symbols()
        paired = not np.any(found.get_initial_magnetic_moments())
        if len(symbols) > 1 and {*symbols} <= {*ELEMENTS} and (paired or not closed_shell):
            out.append(([ELEMENTS.index(s) for s in symbols], found.positions))
    return out


def atoms(given: Molecules, jitters: int, size: float, seed: int) -> dict[str, np.ndarray]:
    """Features of all atoms of an element, ``(atoms, 384)`` float32, each molecule distorted
    several times.

    Args:
        size: standard deviation of every coordinate, in Angstrom.
    """
    random = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {e: [] for e in ELEMENTS}
    for elements, positions in given:
        for _ in range(jitters):
            values = features(elements, positions + size * random.normal(size=positions.shape))
            for element, each in zip(elements, values, strict=True):
                found[ELEMENTS[element]].append(each)
    return {e: np.array(x, np.float32) for e, x in found.items()}


def features(elements: list[int], positions: np.ndarray) -> np.ndarray:
    """Atomic environment vectors of ANI-1x: 4 x 16 radial, 10 x 4 x 8 angular."""
    out = np.zeros((len(elements), 384))
    away = positions[None] - positions[:, None]
    far = np.linalg.norm(away, axis=-1)
    for i in range(len(elements)):
        others = [j for j in range(len(elements)) if j != i]
        for j in others:
            if far[i, j] < _WIDE:
                at = 16 * elements[j]
                out[i, at : at + 16] += (
                    0.25 * np.exp(-16 * (far[i, j] - _RADII) ** 2) * _fade(far[i, j], _WIDE)
                )
        for j, k in itertools.combinations([j for j in others if far[i, j] < _NARROW], 2):
            angle = np.arccos(0.95 * (away[i, j] @ away[i, k]) / (far[i, j] * far[i, k]))
            by_angle = ((1 + np.cos(angle - _ANGLES)) / 2) ** 32
            by_mean = np.exp(-8 * ((far[i, j] + far[i, k]) / 2 - _MEANS) ** 2)
            at = 64 + 32 * _PAIRS[tuple(sorted((elements[j], elements[k])))]
            fade = _fade(far[i, j], _NARROW) * _fade(far[i, k], _NARROW)
            out[i, at : at + 32] += (2 * by_mean[:, None] * by_angle[None] * fade).ravel()
    return out


def _fade(distance: float, cutoff: float) -> float:
    return 0.5 * np.cos(np.pi * distance / cutoff) + 0.5


ALONE = {"H": -0.600952980000, "C": -38.08316124000, "N": -54.70775770000, "O": -75.19446356000}
"""Energies of single atoms in Hartree, which the networks' outputs are added to."""


def energy(
    elements: list[int], positions: np.ndarray, atom: Callable[[str, np.ndarray], float]
) -> float:
    """Of a molecule, in Hartree; ``atom`` gives the output of the networks of an element."""
    pairs = zip(elements, features(elements, positions), strict=True)
    return sum(ALONE[ELEMENTS[e]] + atom(ELEMENTS[e], x.astype(np.float32)) for e, x in pairs)
