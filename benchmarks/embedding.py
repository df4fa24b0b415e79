"""Photos to stored vectors through the product, against the bare forward pass on tensors decoded before.

Photos of the built-in world, rendered at 640 x 480 and written as JPEG; the product reads, decodes,
transforms, embeds and stores them in a private PostgreSQL (`codes.embed_store.embed_all`). The forward pass
alone is given all cores and the same batches. What decoding costs by itself is measured too: where one
processor does everything, it cannot hide behind the forward pass, so the ratio has an upper bound that is
printed.

    .venv/bin/python benchmarks/embedding.py
    .venv/bin/python benchmarks/embedding.py --photos 96 --distinct 24 --repeats 1
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _bench import Goal, arguments, finish, in_turns, say, server, table
from torch import Tensor

SIZE = (480, 640)
# The first is the trunk whose ImageNet weights users have; the second is as small as trunks get.
TRUNKS = {"mobilenetv2_100": 224, "mobilenetv3_small_100": 96}
PHOTOS = """
INSERT INTO photo_record (dataset_id, source_key, uri, s2_id, geom)
SELECT %(dataset)s, 'photo ' || key, uri, s2_id, ST_SetSRID(ST_MakePoint(key * 1e-4, 50), 4326)
FROM unnest(%(keys)s::int8[], %(uris)s::text[], %(cells)s::int8[]) AS t (key, uri, s2_id)
"""


def rendered(folder: Path, count: int) -> list[Path]:
    """So many photos of the built-in world as files."""
    from geofix.world import files
    from geofix.world.write import Recipe, plan_world, take_photo

    recipe = Recipe("tiny", 1)
    shots = plan_world(recipe)[:count]
    for shot in shots:
        files.write_photo(folder, shot, take_photo(recipe, shot, SIZE))  # type: ignore[arg-type]
    return [folder / shot.path for shot in shots]


def store_photos(conn: Any, paths: list[Path], count: int) -> None:
    """Photo rows of these files, each file as often as needed."""
    from geofix.database.queries import photos
    from geofix.spatial import s2

    dataset = photos.ensure_dataset(conn, "photos", licence=None, attribution=None, source_uri=None)[0]
    keys = np.arange(count)
    cells = s2.cell_at(keys * 1e-4, np.full(count, 50.0))
    uris = [str(paths[key % len(paths)]) for key in keys]
    conn.execute(PHOTOS, {"dataset": dataset, "keys": keys.tolist(), "uris": uris, "cells": cells.tolist()})
    conn.commit()


def make_model(conn: Any, name: str, dimension: int) -> Any:
    """A registered model with an empty leaf for its embeddings."""
    from geofix.database.queries import leaves, models

    values: dict[str, Any] = {"name": name, "kind": "encoder", "dimension": dimension, "config": {}}
    values |= {"directory_uri": "nowhere", "weights_sha256": "0" * 64, "input_transform": {}}
    model_id = models.insert_model(conn, {**values, "snapshot_id": None, "metrics": {}})
    if not conn.execute("SELECT to_regclass(%s)", (leaf_name(model_id),)).fetchone()[0]:
        leaves.create_leaf(conn, "photo_embedding", model_id, dimension)
        leaves.index_leaf_keys(conn, "photo_embedding", model_id)
        leaves.attach_leaf(conn, "photo_embedding", model_id)
    conn.commit()
    return models.find_model(conn, name)


def leaf_name(model_id: int) -> str:
    return f"geofix_leaf.photo_embedding_{model_id}"


def forward(encoder: Any, batches: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            encoder(batch.to(encoder.device)).float().cpu().numpy()


def measured(conn: Any, trunk: str, paths: list[Path], options: Any) -> dict[str, Any]:
    """One trunk: pipeline, forward pass and decoding, in turns."""
    from geofix.codes.embed import load_input
    from geofix.codes.embed_store import embed_all
    from geofix.models.encoder import EncoderConfig, build_encoder
    from geofix.models.registry import choose_device

    device = choose_device("auto")
    encoder = build_encoder(EncoderConfig(trunk=trunk, image_size=TRUNKS[trunk])).to(device).eval()
    model = make_model(conn, trunk, encoder.dimension)
    inputs = [torch.from_numpy(load_input(path, encoder.transform)) for path in paths]
    chosen = [inputs[key % len(inputs)] for key in range(options.photos)]
    step = options.batch_size
    batches = [torch.stack(chosen[i : i + step]) for i in range(0, len(chosen), step)]
    forward(encoder, batches[:1])

    def pipeline() -> None:
        result = embed_all(conn, model, "photos", batch_size=step, encoder=encoder)
        assert result.embedded == options.photos, result

    def decode() -> None:
        for key in range(options.photos):
            load_input(paths[key % len(paths)], encoder.transform)

    ways: dict[str, Callable[[], None]] = {
        "product: read, decode, embed, store": pipeline,
        "forward pass alone": lambda: forward(encoder, batches),
        "decode and transform alone, one thread": decode,
    }

    def emptied(_: str) -> None:
        conn.execute(f"TRUNCATE {leaf_name(model.model_id)}")
        conn.commit()

    times = in_turns(ways, options.repeats, before=emptied)
    name = f"{trunk} at {TRUNKS[trunk]} px on {device.type}"
    say(f"\n{name}: {options.photos} photos, batches of {step}, {torch.get_num_threads()} threads of torch")
    rows = [
        (
            way,
            found.spread(),
            f"{options.photos / found.median:,.1f}",
            f"{1e3 * min(found.processor) / options.photos:.2f} ms",
        )
        for way, found in times.items()
    ]
    table(rows, ("way", "wall, median", "photos/s", "processor time a photo, least"))
    whole, bare, decoding = times.values()
    ratios = [b / a for a, b in zip(whole.wall, bare.wall, strict=True)]
    least = {way: min(found.processor) for way, found in times.items()}
    bound = min(bare.processor) / (min(bare.processor) + min(decoding.processor))
    by_processor = min(bare.processor) / min(whole.processor)
    if device.type == "cpu":
        say(
            f"\nbest possible where the processor does both: {bound:.2f};"
            f" by processor time: {by_processor:.2f}"
        )
    return {
        "name": name,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "bound": bound,
        "by_processor": by_processor,
        "times": times,
        "least_processor_s": least,
    }


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--photos", type=int, default=384, help="Photos embedded in a round.")
    parser.add_argument("--distinct", type=int, default=96, help="Photos rendered; they are used in turn.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--trunk", choices=TRUNKS, help="Only this trunk.")
    options = parser.parse_args()
    json_file = options.json.resolve() if options.json else None
    load = os.getloadavg()[0]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="geofix-embed-") as folder, server() as conn:
        paths = rendered(Path(folder), options.distinct)
        store_photos(conn, paths, options.photos)
        mean = statistics.mean(path.stat().st_size for path in paths)
        say(f"{len(paths)} photos of {SIZE[1]} x {SIZE[0]} rendered, {mean / 1e3:.0f} kB each")
        found = [measured(conn, trunk, paths, options) for trunk in TRUNKS if options.trunk in (None, trunk)]
    goals = [Goal(f"{item['name']}: pipeline / forward pass alone", item["ratio"], 0.9) for item in found]
    figures = {"photos": options.photos, "size": SIZE, "trunks": found}
    finish("embedding", goals, json_file, load, figures)


if __name__ == "__main__":
    main()
