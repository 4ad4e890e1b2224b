from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.lab import frames

KINDS = st.integers(0, 255)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300)), max_size=8), st.integers(1, 40))
def test_messages_come_out_as_they_went_in_however_the_line_cuts_them(
    messages: list[tuple[int, bytes]], step: int
) -> None:
    line = b"".join(frames.encode(kind, payload) for kind, payload in messages)
    decoder = frames.Decoder()
    parts = [line[start : start + step] for start in range(0, len(line), step)]
    assert [message for part in parts for message in decoder.feed(part)] == messages


def test_messages_that_were_not_taken_yet_are_not_lost() -> None:
    decoder = frames.Decoder()
    first = next(iter(decoder.feed(frames.encode(1, b"one") + frames.encode(2, b"two"))))
    assert first == (1, b"one")
    assert list(decoder.feed(b"")) == [(2, b"two")]


@given(KINDS, st.integers(0, 2**32 - 1))
def test_an_acknowledgement_names_its_stream_and_the_bytes_taken(kind: int, taken: int) -> None:
    ((message, payload),) = frames.Decoder().feed(frames.encode_ack(kind, taken))
    assert message == frames.ACK
    assert frames.decode_ack(payload) == (kind, taken)


def test_what_may_be_under_way_to_the_guest_fits_its_terminal_layer() -> None:
    acknowledgement = len(frames.encode_ack(frames.OUTPUT, 1))
    acknowledgements = 3 * acknowledgement * (frames.OUTPUT_WINDOW // frames.ACK_STEP)
    assert frames.INPUT_WINDOW + acknowledgements < 3500
