"""A video: where its medium lies, and what may become of it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from catalog.grid import need_exact

# What became of a video. "pending" is wanted and not yet tried; the other three are final until --retry.
Status = Literal["pending", "extracted", "partial", "quarantined"]
STATUSES: tuple[Status, ...] = get_args(Status)

# Why a video is partial or quarantined. One word each, for filters such as `extract --retry REASON`.
REASONS = {
    "no_video": "audio only: the visual features are missing",
    "no_audio": "frames only: the audio features are missing",
    "missing_file": "nothing lies at the path or URL",
    "unreadable_path": "the path cannot be opened (a link to nothing, a loop, no permission)",
    "not_a_file": "the path is a directory, a socket or a device",
    "empty_file": "zero bytes",
    "not_media": "no demuxer knows it (text, random bytes)",
    "container_truncated": "the container's index is missing: an incomplete download",
    "corrupt_container": "the container's index contradicts itself or the file",
    "corrupt_payload": "too much of the coded video or audio is damaged",
    "truncated_media": "the container promises more than can be decoded",
    "video_undecodable": "there is a video track, and no frame can be decoded",
    "audio_undecodable": "there is an audio track, and no sample can be decoded",
    "audio_not_finite": "the audio holds NaN or infinity",
    "video_too_small": "frames of fewer than 8 pixels a side",
    "resolution_change": "the frame size changes within the video",
    "timestamps_not_monotonic": "the clock jumps back within the file",
    "decoder_crash": "the decoder killed its process, twice",
    "decoder_timeout": "the decoder did not finish in its time, twice",
    "decoder_memory": "the decoder asked for more memory than allowed",
    "worker_crash": "the worker process died on this video, twice",
    "fetch_failed": "the remote medium could not be read",
    "encoder_failed": "the encoder raised on this video's clips",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of extracting a video, as a whole or under one recipe.

    Attributes:
        status: one of `STATUSES`.
        reason: a key of `REASONS` where partial or quarantined, else "".
        detail: the message behind the reason, for people.
    """

    status: str
    reason: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"a video's status must be one of {', '.join(STATUSES)}, got {self.status!r}")


EXTRACTED = Outcome(status="extracted")


@dataclass(frozen=True, kw_only=True)
class Video:
    """One medium to extract.

    Attributes:
        id: unique in the data set; any text without NUL (file names may hold new lines).
        uri: a local path or an fsspec URL (`s3://`, `https://`). A path that is not UTF-8 is a percent-escaped
            `file://` URL, which `catalog.media.local_path` turns back: stores and JSON hold valid text only.
        duration_s: the annotated duration, if the data set states one.
    """

    id: str
    uri: str
    duration_s: Fraction | None = None

    def __post_init__(self) -> None:
        if not self.id or "\0" in self.id or "\0" in self.uri or not self.uri:
            raise ValueError(f"a video needs an id and a uri without NUL characters, got {self!r}")
        try:
            (self.id + self.uri).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"a video's id and uri must be valid UTF-8, got {self!r}; see catalog.media.text_of and uri_of"
            ) from error
        if self.duration_s is not None:
            need_exact(self, "duration_s")
        if self.duration_s is not None and self.duration_s <= 0:
            raise ValueError(f"{self.id}: duration_s must be above 0, got {self.duration_s}")
