"""The platform on this machine: `nebula up`, the process of each role, and images built from packages."""
