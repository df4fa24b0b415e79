"""From a training configuration to encoders with trained and frozen parts."""

from __future__ import annotations

from dataclasses import replace

from pydantic import ValidationError

from geofix.errors import BadInputError
from geofix.imagery.transforms import InputTransform
from geofix.models.config import EncoderConfig
from geofix.models.encoder import Encoder, build_encoder
from geofix.models.groups import freeze_trunk
from geofix.training.config import EncoderSection, TrainingConfig
from geofix.training.halves import PARTNERS


def build_networks(config: TrainingConfig, *, aerial: bool) -> dict[str, Encoder]:
    """Encoders of one design and separate weights, frozen where the configuration says so.

    Args:
        config: The run.
        aerial: Whether there is imagery to learn from; without it there is a ground encoder alone.

    Returns:
        By role: `ground`, and `aerial` where asked for.
    """
    sections = {"ground": config.ground}
    if aerial:
        sections["aerial"] = config.aerial or config.ground
    networks = {}
    for place, (role, section) in enumerate(sections.items()):
        # Separate weights: another seed, for whatever no file supplies.
        seed = 2 * config.seed + place
        encoder = build_encoder(
            encoder_config(section, config.dimension, seed=seed, role=role, separate=config.separate)
        )
        freeze_trunk(encoder)
        networks[role] = encoder
    return networks


def encoder_config(
    section: EncoderSection, dimension: int | None, *, seed: int, role: str, separate: bool = False
) -> EncoderConfig:
    """The encoder that a section describes, its input transform resolved.

    With `separate` the ground encoder has a trunk for each half, the aerial one fills the tiles' half alone.

    Raises:
        BadInputError: Values that do not go together; the message names the encoder and the field.
    """
    values = {
        "trunk": section.trunk,
        "trunk_kwargs": section.trunk_options,
        "weights_uri": section.weights,
        "weights_sha256": section.sha256,
        "aggregation": section.aggregation,
        "gem_p": section.gem_p,
        "train_blocks": section.train_blocks,
        "dimension": dimension,
        "parts": len(PARTNERS) if separate else 1,
        "part": PARTNERS.index("tiles") if separate and role == "aerial" else None,
        "projection": "learned",
        "seed": seed,
    }
    salad = {
        "salad_clusters": section.salad_clusters,
        "salad_width": section.salad_width,
        "salad_token": section.salad_token,
    }
    try:
        config = EncoderConfig(**values, **{key: value for key, value in salad.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInputError(f"{role} encoder: {place}: {first['msg']} ({first.get('input')!r}).") from error
    resolved = build_encoder(config, load_weights=False).transform
    return config.model_copy(update={"input": _input(section, resolved)})


def _input(section: EncoderSection, resolved: InputTransform) -> InputTransform:
    """The trunk's own input with what the section replaces."""
    changes: dict[str, object] = {}
    if section.size is not None:
        size = section.size if isinstance(section.size, tuple) else (section.size, section.size)
        changes |= {"size": size, "crop": 1.0}
    if section.fit is not None:
        changes["fit"] = section.fit
    if section.mean is not None:
        changes["mean"] = (section.mean,) * 3
    if section.std is not None:
        changes["std"] = (section.std,) * 3
    return replace(resolved, **changes)  # type: ignore[arg-type]
