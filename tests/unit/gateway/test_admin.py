"""What HAProxy answers, as its runtime interface writes it."""

from __future__ import annotations

from node.agent.gateway.admin import Processes, parse_counts, parse_in_flight, parse_processes, parse_sessions

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


SESSIONS = """0x55b28226e930: [21/Nov/2026:09:51:45.710452] id=3 proto=tcpv4 source=127.0.0.1:52856
  frontend=gateway (id=2 mode=http), listener=? (id=1) addr=127.0.0.1:18080
  backend=peers (id=3 mode=http) addr=127.0.0.1:37252
  server=peer (id=1) addr=10.0.0.2:7080
0x55b282379b30: [21/Nov/2026:09:51:46.854321] id=4 proto=tcpv4 source=127.0.0.1:7080
  server=tenant (id=1) addr=10.0.0.2:7080
0x55b282379b40: [21/Nov/2026:09:51:46.854321] id=5 proto=tcpv4 source=127.0.0.1:7080
  server=peer (id=1) addr=10.0.0.2:70801
"""


def test_sessions_with_one_gateway_are_found_and_nobody_elses() -> None:
    assert parse_sessions(SESSIONS, "10.0.0.2:7080") == ["0x55b28226e930"]


def test_requests_are_counted_by_tenant() -> None:
    text = """# table: away, type: string, size:102400, used:2
0x1: key=acme use=0 exp=59000 shard=0 conn_cur=0 http_req_cnt=12
0x2: key=beta use=1 exp=1 conn_cur=1 http_req_cnt=3
"""
    assert parse_counts(text) == {"acme": 12, "beta": 3}
