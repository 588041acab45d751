"""`python -m node_daemon`."""

from node_daemon.main import main

if __name__ == "__main__":
    main()
