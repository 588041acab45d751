"""What nodes say: registrations, leases, and reports of VMs."""
