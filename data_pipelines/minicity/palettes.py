"""Colours of the two styles, RGB in [0, 255]; muted, as plaster, brick and stone are."""

from __future__ import annotations

import numpy as np

WALLS = {
    "old_town": (
        (214, 196, 158), (202, 168, 112), (186, 120, 88), (152, 84, 68), (178, 188, 160), (140, 160, 172),
        (206, 168, 156), (170, 166, 158), (226, 220, 206), (196, 150, 92), (124, 140, 122), (216, 190, 128),
        (132, 104, 92), (164, 136, 150), (112, 128, 150), (228, 206, 178),
    ),
    "modern": (
        (188, 190, 190), (150, 154, 158), (112, 116, 122), (206, 202, 194), (92, 104, 116), (168, 150, 130),
        (134, 98, 82), (222, 222, 220), (104, 122, 132), (84, 84, 90), (160, 168, 176), (178, 164, 150),
    ),
}  # fmt: skip
TRIM = ((236, 230, 218), (214, 206, 190), (120, 108, 98), (86, 84, 84), (190, 176, 152), (158, 152, 144))
ROOFS = ((138, 76, 58), (112, 70, 60), (82, 80, 84), (98, 90, 86), (152, 96, 70))
WOOD = ((92, 58, 40), (58, 74, 62), (46, 58, 84), (112, 44, 42), (70, 70, 72), (124, 98, 66), (150, 140, 126))
SIGNS = (
    (178, 46, 44), (34, 84, 140), (34, 110, 76), (222, 168, 44), (50, 50, 56), (232, 226, 212), (126, 52, 96),
    (218, 110, 44), (64, 142, 150), (96, 64, 44),
)  # fmt: skip
GLASS = ((72, 88, 102), (58, 70, 82), (92, 108, 120), (48, 56, 64), (104, 122, 136))
CURTAIN = ((206, 198, 184), (170, 150, 128), (146, 158, 166), (186, 140, 128))
# Codes of the ground map: asphalt, pavement, kerb, gardens, white paint, yellow paint, patches, cobbles.
GROUND = (
    (88, 88, 92), (150, 146, 140), (178, 174, 166), (96, 112, 76), (216, 216, 212), (206, 168, 70), (70, 70, 74),
    (126, 118, 110),
)  # fmt: skip

SNOW = (235, 239, 246)
# Light of street lamps as a factor of a surface's colour; of lit windows and shop windows as a colour.
LAMP_LIGHT, WINDOW_LIGHT, SHOP_LIGHT = (1.0, 0.86, 0.62), (255, 206, 132), (116, 100, 70)


def pick(rng: np.random.Generator, colours: tuple, jitter: float = 10.0) -> np.ndarray:
    """One of `colours`, each channel moved by up to `jitter` (lightness and hue alike); float64 [3]."""
    colour = np.array(colours[rng.integers(len(colours))], float)
    return np.clip(colour + rng.uniform(-jitter, jitter) + rng.uniform(-jitter, jitter, 3) * 0.5, 0, 255)
