"""What the events benchmarks share: one server, one workload, a process for each contender, and reports.

Theory: every contender runs in a process of its own, alive for the whole run, and is told by lines on its standard
input what to do next. The conductor lets one contender work at a time, in alternating rounds, so that whatever else the
machine does hits everybody alike; medians over rounds are reported, and ratios are taken within a round.

Invariant: what a contender says it delivered is never believed: the server counts the events and their identities.
"""
