"""One unit between the decoder and the store: attempts, restarts, refusals, and what is encoded together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from catalog.errors import MediaError
from pipeline import unit as stage
from pipeline.clips import Clips
from pipeline.sandbox.parent import DecoderKilled
from pipeline.unit import MAX_ATTEMPTS, MAX_FOREIGN_KILLS, Stopped, UnitEncoder, UnitResult, decode_unit, run_unit
from tests.pipeline import made_units
from tests.pipeline.made_units import Attempt, ScriptedDecoder, ShadeEncoder, clips, decoded, local_copy

Script = dict[str, list[Attempt]]

CRASH = MediaError("decoder_crash", "signal SIGSEGV")
KILLED = DecoderKilled("decoder_crash", "SIGKILL by another process")


def whole(video_id: str, shade: int = 1) -> Attempt:
    return [("r", clips(video_id, shade=shade)), decoded()]


def run(
    script: Script, *, encoder: ShadeEncoder | None = None, crashed: frozenset[str] = frozenset()
) -> tuple[UnitResult, ScriptedDecoder, ShadeEncoder]:
    decoder, encoder = ScriptedDecoder(script), encoder or ShadeEncoder()
    unit = made_units.unit(len(script), crashed=crashed)
    recipes = {name: made_units.recipe(name) for name in unit.recipes}
    return run_unit(unit, recipes, dict.fromkeys(recipes, encoder), decoder, local_copy), decoder, encoder


def told(result: UnitResult) -> list[tuple[str, int]]:
    return [(video.reason, video.attempts) for video in result.videos]


def values(result: UnitResult, position: int) -> list[float]:
    """The first number of each segment of a video."""
    rows = []
    for part in result.videos[position].features["r"]:
        assert part.visual is not None
        rows += [float(value) for value in part.visual.values[:, 0]]
    return rows


def test_unit_short_videos_are_encoded_together_in_the_units_order() -> None:
    result, _, encoder = run({f"v{i:02d}": [whole(f"v{i:02d}", shade=i + 1)] for i in range(3)})
    assert encoder.calls == [("v00", "v01", "v02")]
    assert [values(result, i) for i in range(3)] == [[1, 1], [2, 2], [3, 3]]
    assert told(result) == [("", 1)] * 3


def test_unit_short_videos_beyond_the_gathering_limit_are_encoded_in_parts() -> None:
    decoder, encoder = ScriptedDecoder({f"v{i:02d}": [whole(f"v{i:02d}")] for i in range(5)}), ShadeEncoder()
    gathering = UnitEncoder(made_units.unit(5), {"r": encoder}, gather_bytes=2 * clips("v").nbytes)
    for event in decode_unit(made_units.unit(5), {"r": made_units.recipe()}, decoder, local_copy):
        gathering.add(event)
    gathering.finish()
    assert encoder.calls == [("v00", "v01"), ("v02", "v03"), ("v04",)]


def test_unit_long_video_is_encoded_window_by_window() -> None:
    windows = [("r", clips("v00", first=first, of=6, shade=first + 1)) for first in (0, 2, 4)]
    result, _, encoder = run({"v00": [[*windows, decoded()]], "v01": [whole("v01")]})
    assert encoder.calls == [("v00",)] * 3 + [("v01",)]
    assert values(result, 0) == [1, 1, 3, 3, 5, 5]


def test_unit_decoder_that_dies_once_leaves_nothing_of_that_attempt() -> None:
    first: Attempt = [("r", clips("v00", of=4, shade=9)), CRASH]
    second: Attempt = [("r", clips("v00", of=4, shade=1)), ("r", clips("v00", first=2, of=4, shade=2)), decoded()]
    result, decoder, _ = run({"v00": [first, second]})
    assert told(result) == [("", 2)]
    assert values(result, 0) == [1, 1, 2, 2]
    assert decoder.asked == ["v00"] * 2


@pytest.mark.parametrize("reason", sorted(stage.CHARGED_REASONS))
def test_unit_decoder_that_dies_every_time_costs_that_video_alone(reason: str) -> None:
    result, decoder, _ = run({"v00": [[MediaError(reason, "again")]], "v01": [whole("v01", shade=4)]})
    assert told(result) == [(reason, MAX_ATTEMPTS), ("", 1)]
    assert decoder.asked == ["v00"] * MAX_ATTEMPTS + ["v01"]
    assert values(result, 1) == [4, 4]
    assert result.videos[0].features == {}


def test_unit_medium_that_cannot_be_used_is_tried_once() -> None:
    result, decoder, _ = run({"v00": [[("r", clips("v00", of=4)), MediaError("not_media", "text")]]})
    assert (told(result), decoder.asked) == ([("not_media", 1)], ["v00"])
    assert result.videos[0].features == {}


def test_unit_kills_by_others_are_not_charged_to_the_video() -> None:
    kills: list[Attempt] = [[KILLED]] * (MAX_FOREIGN_KILLS - 1)
    result, _, _ = run({"v00": [*kills, whole("v00")]})
    assert told(result) == [("", 1)], "the store must not tell that somebody killed the decoder"


def test_unit_kills_by_others_end_some_time() -> None:
    result, decoder, _ = run({"v00": [[KILLED]]})
    assert told(result) == [("decoder_crash", 1)]
    assert len(decoder.asked) == MAX_FOREIGN_KILLS


def test_unit_crashed_videos_are_not_opened() -> None:
    result, decoder, _ = run({"v00": [whole("v00")], "v01": [whole("v01")]}, crashed=frozenset({"v00"}))
    assert told(result) == [("worker_crash", MAX_ATTEMPTS), ("", 1)]
    assert decoder.asked == ["v01"]


@pytest.mark.parametrize(
    ("items", "detail"),
    [
        ([("r", clips("v00", of=4)), decoded()], "ended after 2 segments of 4"),
        ([("r", clips("v00", first=2, of=4)), decoded()], "gave segment 2 where 0 was due"),
        ([("r", clips("v00", of=4)), ("r", clips("v00", first=2, of=5)), decoded()], "segment 2 where 2 was due"),
        ([decoded()], "ended after 0 segments of any"),
    ],
)
def test_unit_segments_that_are_not_all_there_are_no_features(items: Attempt, detail: str) -> None:
    result, _, _ = run({"v00": [items]})
    assert told(result) == [("decoder_crash", 1)]
    assert detail in result.videos[0].detail
    assert result.videos[0].features == {}


def test_unit_decoder_without_a_last_word_is_tried_again() -> None:
    result, _, _ = run({"v00": [[("r", clips("v00", shade=9))], whole("v00", shade=2)]})
    assert (told(result), values(result, 0)) == ([("", 2)], [2, 2])


def refuses(shade: int, error: Exception) -> ShadeEncoder:
    """Raises where a picture of that shade is among the clips."""

    def refuse(given: Sequence[Clips]) -> None:
        if any((item.frames_FHWC == shade).any() for item in given):
            raise error

    return ShadeEncoder(refuse=refuse)


def test_unit_encoder_that_refuses_one_video_has_the_others() -> None:
    script: Script = {f"v{i:02d}": [whole(f"v{i:02d}", shade=i)] for i in range(3)}
    result, _, encoder = run(script, encoder=refuses(1, ValueError("dark")))
    assert encoder.calls == [("v00", "v01", "v02"), ("v00",), ("v01",), ("v02",)]
    assert [video.refused for video in result.videos] == [{}, {"r": "ValueError: dark"}, {}]
    assert [sorted(video.features) for video in result.videos] == [["r"], [], ["r"]]


def test_unit_encoder_that_refuses_a_window_has_nothing_of_that_video() -> None:
    windows = [("r", clips("v00", first=first, of=6, shade=first)) for first in (0, 2, 4)]
    result, _, encoder = run({"v00": [[*windows, decoded()]]}, encoder=refuses(2, ValueError("dark")))
    assert result.videos[0].refused == {"r": "ValueError: dark"}
    assert result.videos[0].features == {}
    assert len(encoder.calls) == 2, "what follows the refused window is not encoded"


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OutOfMemoryError("CUDA"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")],
)
def test_unit_want_of_memory_is_no_videos_fault_and_ends_the_job(error: Exception) -> None:
    with pytest.raises(type(error)):
        run({"v00": [whole("v00")]}, encoder=refuses(1, error))


def test_unit_stops_between_videos() -> None:
    decoder = ScriptedDecoder({"v00": [whole("v00")], "v01": [whole("v01")]})
    unit = made_units.unit(2)
    events = decode_unit(
        unit, {"r": made_units.recipe()}, decoder, local_copy, stopping=lambda: len(decoder.asked) == 1
    )
    with pytest.raises(Stopped):
        list(events)
    assert decoder.asked == ["v00"]
