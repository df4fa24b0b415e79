"""A few photographed streets, for jobs that need real files."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

TOWNS = [(7.45, 47.50), (7.55, 47.50), (7.45, 47.60), (7.55, 47.60)]


def streets(root: Path) -> Path:
    """Photos of streets 150 m long, three sequences each, with a table of positions."""
    rng = np.random.default_rng(0)
    rows = []
    for t, (lon, lat) in enumerate(TOWNS):
        for s in range(3):
            start = datetime(2018 + s, 5, 10, 9, tzinfo=UTC)
            (root / f"{t}-{s}").mkdir(parents=True)
            for i in range(6):
                key = f"{t}-{s}/{i}.jpg"
                Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(root / key)
                at = {"lon": lon + 25 * i / 75_000, "lat": lat + 6 * s / 111_000}
                when = (start + timedelta(seconds=20 * i)).isoformat()
                rows.append({"image_path": key, **at, "captured_at": when, "sequence": f"{t}-{s}"})
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root
