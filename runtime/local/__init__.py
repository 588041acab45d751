"""The servers that `nebula up` and the tests start, and the processes beside them."""
