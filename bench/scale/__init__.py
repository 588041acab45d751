"""Benchmarks on the log of a large cloud: `python -m bench scale --vms 100000 --json`.

The log has nine to ten events for each VM, 200 nodes, 40 projects and 100 users, and is made through the event store.
It is made once, at some thousand events a second, and kept in `~/.cache/nebula-bench` (or the folder of `--home`; about
1 GiB for 100,000 VMs). Everything runs on a copy of it. For a measurement of your own:

    from bench.scale.logs import with_log

    async with with_log(10_000) as cloud:          # NATS with accounts and Postgres run, on a copy of the log
        await cloud.start("handlers")              # a role as a process, which is stopped in the end
        nc = await cloud.bus()                     # with the operator's credential
        ...
        await cloud.stop("handlers")

The event keys and the notary's key are in `cloud.home`, as on a real host. The nodes of the log send no heartbeats, so
`with_log` sets NEBULA_NODE_TIMEOUT to an hour. Handlers write the wanted documents of all VMs after their first start.
`with_bus` is the same with a NATS server without accounts, and nothing else. `lives.py` makes the events, and
`generator.py` writes them; `logs.py` keeps the logs. A row of the result is a file with `async def measure(vms, home)`,
which returns its figures by name. `rows.py` names all rows (`--rows` chooses some), and prints each at all VMs and at a
tenth; `goals.py` has the goals of the figures. Some rows are benchmarks of their own, which it runs as well.
"""
