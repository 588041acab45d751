"""The servers and processes that `nebula up` and the tests start."""
