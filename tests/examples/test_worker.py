"""The worker, in this process and as a process."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
import worker
from emulator.kit import CONTEXT

pytestmark = pytest.mark.anyio
EXAMPLE = Path(worker.__file__)


def line(action="impression", customer_id="customer-1", **more):
    return json.dumps({"action": action, "customer_id": customer_id, "experience_context": CONTEXT, **more}).encode()


async def start():
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def test_the_same_line_is_the_same_event():
    assert worker.event_of(line()).event_uuid == worker.event_of(line()).event_uuid
    assert worker.event_of(line()).event_uuid != worker.event_of(line(customer_id="customer-2")).event_uuid


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", line("seen"), line(surprise=1)], ids="empty cut list none action field".split()
)
def test_a_line_that_is_no_event_is_an_error_that_does_not_quote_it(text):
    with pytest.raises(ValueError) as error:
        worker.event_of(text)
    assert "customer-1" not in str(error.value)


class TestAsAProcess:
    @pytest.fixture
    def anyio_backend(self):
        """The loop of the emulator beside it; the worker has its own."""
        return "asyncio", {"loop_factory": asyncio.SelectorEventLoop}

    async def test_every_line_arrives_once_and_bad_ones_are_named_by_number(self, emulated):
        process = await start()
        feed = [line(b_id="x"), *(line("click", f"customer-{n}", b_id="cta", at=1795459200) for n in range(50)), b"{"]
        out, err = await process.communicate(b"\n".join([*feed, feed[1]]) + b"\n")
        result = json.loads(out)
        assert emulated.ledger.counts.clicks == 50
        assert (result["accepted"], result["delivered"], result["duplicate"]) == (50, 50, 1)
        assert err.decode().splitlines() == [
            "line 1: b_id and attributes belong to clicks",
            "line 52: it is not an event in JSON",
        ]
        assert (process.returncode, result["unusable_lines"]) == (1, 2)

    async def test_a_clean_run_ends_with_0(self, emulated):
        process = await start()
        await process.communicate(line())
        assert process.returncode == 0
        assert emulated.ledger.counts.accepted == 1

    async def test_a_file_that_is_fed_twice_counts_once(self, emulated):
        for _ in range(2):
            await (await start()).communicate(line("click", at=1795459200))
        counts = emulated.ledger.counts
        assert (counts.received, counts.accepted, counts.duplicates_identical) == (2, 1, 1)

    @pytest.mark.conformance
    async def test_waiting_for_delivery_holds_up_the_reader_and_loses_nothing(self, emulated):
        feed = [line("click", f"customer-{n % 100}", at=1795459200 + n) for n in range(5_000)]
        process = await start()
        out, _ = await process.communicate(b"\n".join(feed))
        assert process.returncode == 0
        assert json.loads(out)["dropped"] == 0
        assert emulated.ledger.counts.accepted == 5_000

    @pytest.mark.conformance
    async def test_told_to_stop_it_delivers_what_it_has_read(self, emulated):
        process = await start()
        process.stdin.write(line() + b"\n")
        await process.stdin.drain()
        while (
            not emulated.ledger.counts.accepted
        ):  # the linger is over: it has read the line, and now waits for another
            await asyncio.sleep(0.01)
        process.stdin.write(line(customer_id="customer-2") + b"\n")
        await process.stdin.drain()
        await asyncio.sleep(0.3)  # less than the linger
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 10)  # the input is still open
        assert json.loads(out)["delivered"] == 2, err
        assert emulated.ledger.counts.accepted == 2
