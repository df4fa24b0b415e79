"""What a job, a stage of a pipeline or a benchmark may say of how its evaluations ask and count."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from geofix.errors import UsageError
from geofix.evaluation.protocols import Comparison, EvaluationProtocol, MissingPolicy, protocol_of
from geofix.localizers.density import MODES

SEARCHES_PHOTOS = ("knn", *MODES)
"""Localizers that search single training photos, so that some can be passed over."""


def _text(value: Any) -> Any:
    return f"{value:.10g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


class ProtocolOptions(BaseModel):
    """The options of `geofix evaluate external` that say how to count.

    What is left at its default is not written out: what was stored or hashed before there were such options
    stays as it is.
    """

    unwritten: ClassVar[tuple[str, ...]] = ("protocol", "radius", "comparison", "missing")

    protocol: str = Field("geofix", description="geofix, pigeon, geoclip, osv5m, mever, g3 or plonk.")
    radius: Annotated[str | None, BeforeValidator(_text)] = Field(
        None, description="Radius of the earth in km, or ellipsoidal; default: the protocol's."
    )
    comparison: Comparison | None = Field(None, description="<= or <; default: the protocol's.")
    missing: MissingPolicy | None = Field(None, description="wrong or drop; default: the protocol's.")

    @model_validator(mode="after")
    def _known_protocol(self) -> Self:
        try:
            self.rules()
        except UsageError as error:
            hint = f" ({error.hint.rstrip('.')})" if error.hint else ""
            raise ValueError(f"{error.message.rstrip('.')}{hint}") from None
        return self

    @model_serializer(mode="wrap")
    def _what_is_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        usual = {name for name in self.unwritten if getattr(self, name) == fields[name].default}
        return {name: value for name, value in handler(self).items() if name not in usual}

    def rules(self) -> EvaluationProtocol:
        """The protocol.

        Raises:
            UsageError: None has this name, or a value is none of the allowed ones.
        """
        return protocol_of(
            self.protocol, radius=self.radius, comparison=self.comparison, missing=self.missing
        )

    def counting(self) -> dict[str, Any]:
        """The options that are given, as `evaluation.service.prepare` takes them."""
        names = ProtocolOptions.unwritten
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class AskedOptions(ProtocolOptions):
    """How to count, and whom photos may not find."""

    unwritten: ClassVar[tuple[str, ...]] = (*ProtocolOptions.unwritten, "exclude_author")

    exclude_author: bool = Field(
        False, description="knn, knn_density, knn_density_compat: no training photo of a photo's own author."
    )


def refuse_own_author(localizers: list[str]) -> None:
    """Authors can be passed over by localizers that search photos alone.

    Raises:
        ValueError: One of these does not.
    """
    if other := [name for name in localizers if name not in SEARCHES_PHOTOS]:
        raise ValueError(
            f"exclude_author: localizer {other[0]} does not search photos, so none can be passed over; it is "
            f"for {', '.join(SEARCHES_PHOTOS)}"
        )
