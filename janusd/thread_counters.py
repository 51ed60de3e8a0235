"""The counters that a TCP thread writes into its region, by name: the order of struct tcp_counters.

They are the app's own words: shown, never believed.
"""

from __future__ import annotations

from collections.abc import Sequence

NAMES = (
    "segments_received",
    "segments_sent",
    "bytes_received",
    "bytes_sent",
    "connections_accepted",
    "connections_opened",
    "connections_closed",
    "connections_reset",
    "connections_timed_out",
    "connections_failed",
    "retransmitted_segments",
    "retransmission_timeouts",
    "fast_retransmits",
    "spurious_timeouts",
    "ce_received",
    "ecn_reductions",
    "duplicate_acks",
    "out_of_order_segments",
    "resets_sent",
    "resets_received",
    "challenge_acks",
    "syn_received",
    "syn_cookies_sent",
    "syn_cookies_accepted",
    "slots_dry",
    "output_blocked",
    "persist_resets",
    "misdirected_segments",
    "icmp_errors",
    "pmtu_reductions",
    "pmtu_probes",
    "pmtu_raises",
    "stalls",
    "urgent_segments",
    "run_segments",
    "queue_steps",
)
DROPS = (
    "none",
    "malformed",
    "checksum",
    "not_local",
    "no_connection",
    "bad_flags",
    "out_of_window",
    "paws",
    "bad_ack",
    "challenged",
    "no_timestamp",
    "duplicate",
    "reassembly_full",
    "no_room",
    "no_tcb",
    "after_close",
    "cookie",
    "moving",
    "icmp",
)


def by_name(values: Sequence[int]) -> dict[str, int]:
    """Name to value; drop reasons as "drop.reason"."""
    names = (*NAMES, *(f"drop.{reason}" for reason in DROPS))
    return {name: value for name, value in zip(names, values, strict=False) if name != "drop.none"}


def connections(values: Sequence[int], rows: int) -> int:
    """How many connections are open, as far as the counters of a thread with so many rows can be right."""
    counters = by_name(values)
    opened = counters.get("connections_accepted", 0) + counters.get("connections_opened", 0)
    return min(rows, max(0, opened - counters.get("connections_closed", 0)))
