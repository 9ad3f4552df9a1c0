"""What HAProxy answers, as its runtime interface writes it."""

from __future__ import annotations

from node.agent.gateway.admin import Processes, parse_in_flight, parse_processes

RUNNING = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
27871           master          0 [failed: 0]   0d00h00m25s     2.6.12-1+deb12u4
# workers
27874           worker          0               0d00h00m24s     2.6.12-1+deb12u4
# programs

"""
RELOADED = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
1162            master          5 [failed: 1]   0d00h02m07s     2.6.12-1+deb12u4
# workers
1271            worker          1               0d00h00m00s     2.6.12-1+deb12u4
# old workers
1233            worker          3               0d00h00m43s     2.6.12-1+deb12u4
1234            worker          4               0d00h00m33s     2.6.12-1+deb12u4
# programs

"""


def test_the_processes_are_told_apart() -> None:
    assert parse_processes(RUNNING) == Processes(27874, (), 0, 0)
    reloaded = parse_processes(RELOADED)
    assert reloaded == Processes(1271, (1233, 1234), 5, 1)
    assert reloaded.all == (1271, 1233, 1234)


def test_a_master_without_a_worker_has_none() -> None:
    nothing = parse_processes(RUNNING.replace("27874           worker          0", ""))
    assert nothing.current is None
    assert nothing.all == ()
    assert parse_processes("") == Processes(None, (), 0, 0)


def test_in_flight_is_the_tenants_own_count() -> None:
    text = "# table: in_flight, type: string, size:102400, used:2\n0x7f1: key=acme use=3 exp=3599999 conn_cur=3\n"
    assert parse_in_flight(text, "acme") == 3
    assert parse_in_flight(text, "acm") == 0
    assert parse_in_flight("\n", "acme") == 0
