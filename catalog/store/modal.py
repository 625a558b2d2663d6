"""Features of a run of segments, a row each, modality by modality; NaN stands where none were computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Modal:
    """Features of one modality.

    Attributes:
        values: float (R, *shape).
        valid: bool (R,), True where the feature was computed.
    """

    values: NDArray[np.floating]
    valid: NDArray[np.bool_]

    @classmethod
    def of(cls, values: NDArray[np.floating] | None, valid: NDArray[np.bool_]) -> Modal | None:
        """A modality whose `values` may be None: it is then None itself."""
        return None if values is None else cls(values=values, valid=valid)

    @classmethod
    def join(cls, parts: Sequence[Modal]) -> Modal:
        """The rows of `parts` one after another."""
        if len(parts) == 1:
            return parts[0]
        values, valid = [part.values for part in parts], [part.valid for part in parts]
        return cls(values=np.concatenate(values), valid=np.concatenate(valid))

    def filled(self, fill: float) -> NDArray[np.floating]:
        """`values` with `fill` in the rows that are not valid."""
        valid = self.valid.reshape(-1, *[1] * (self.values.ndim - 1))
        return np.where(valid, self.values, self.values.dtype.type(fill))

    def faults(self, storage: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the rows that are valid and not finite in `storage` (None: as they are), and of those that are not
        valid and not NaN throughout."""
        axes = tuple(range(1, self.values.ndim))
        infinite = np.flatnonzero(self.valid & ~_finite(self.values, storage).all(axis=axes))
        unknown = np.flatnonzero(~self.valid)
        return infinite, unknown[~np.isnan(self.values[unknown]).all(axis=axes)]

    def check(self, count: int, shape: Sequence[int] | None = None, *, storage: str | None = None) -> None:
        """Checks size and values, each row finite where valid and NaN throughout elsewhere.

        Args:
            count: R.
            shape: of one row; None is any.
            storage: dtype that the values are to be stored in; float16 ends at 65,504.

        Raises:
            ValueError: they are not so.
        """
        valid, values = self.valid, self.values
        if valid.shape != (count,) or valid.dtype != np.bool_:
            raise ValueError(f"needs {count} validity flags, got {valid.dtype} {valid.shape}")
        wanted = (count, *(values.shape[1:] if shape is None else shape))
        if values.shape != wanted or not np.issubdtype(values.dtype, np.floating):
            raise ValueError(f"needs floats {wanted}, got {values.dtype} {values.shape}")
        infinite, unknown = self.faults(storage)
        if len(infinite):
            raise ValueError(f"row {infinite[0]} is valid and not finite in {storage or values.dtype}")
        if len(unknown):
            raise ValueError(f"row {unknown[0]} is not valid and not NaN")


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of both modalities, a row a segment in each.

    Attributes:
        visual, audio: NaN where not valid; None without such a tower, or where nothing of this modality is there.
    """

    visual: Modal | None
    audio: Modal | None

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """The rows of `parts` one after another.

        Raises:
            ValueError: a modality that only some of them have.
        """
        joined: dict[str, Modal | None] = {}
        for name in ("visual", "audio"):
            present = [modal for part in parts if (modal := part.modal(name)) is not None]
            if len(present) not in (0, len(parts)):
                missing = len(parts) - len(present)
                raise ValueError(f"{name} features are missing from {missing} of {len(parts)} windows")
            joined[name] = Modal.join(present) if present else None
        return Features(**joined)

    def modal(self, modality: str) -> Modal | None:
        """The features of `modality`, "visual" or "audio"."""
        return {"visual": self.visual, "audio": self.audio}[modality]

    def modalities(self) -> Iterator[tuple[str, Modal]]:
        """Name and features of each modality there is."""
        for name, modal in (("visual", self.visual), ("audio", self.audio)):
            if modal is not None:
                yield name, modal

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(modal.values.nbytes for _, modal in self.modalities())


def _finite(values: NDArray[np.floating], storage: str | None) -> NDArray[np.bool_]:
    if storage == "float16" and values.dtype != np.float16:
        with np.errstate(over="ignore"):
            values = values.astype(np.float16)
    if values.dtype == np.float16:
        # By the exponent's bits: np.isfinite takes twice as long on float16.
        exponents = np.ascontiguousarray(values).view(np.uint16) & 0x7C00
        return np.asarray(exponents != 0x7C00)
    return np.asarray(np.isfinite(values))
