"""The messages of nodes: registrations, requests for leases, and reports about VMs."""
