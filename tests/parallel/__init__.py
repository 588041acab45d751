"""`pytest --workers N`: the tests are collected once, and run by N forks of the process that has collected them.

pytest-xdist starts interpreters that import and collect all tests again, each for ten seconds of CPU time. Here a
worker begins with the first test, and shares the memory of what was collected. `run` is the process that forks,
`worker` a fork, `files` decides who runs which file.
"""
