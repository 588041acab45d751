"""What somebody may be allowed to do, by name. Each verb names the permission that it needs.

A kind makes its own; here are those that several files name. `operate` is to change what a thing does, `edit` to change
what it is, `manage` to do both with a part of the cloud itself.
"""

from typing import NewType

Permission = NewType("Permission", str)

VM_CREATE = Permission("vm.create")
VM_OPERATE = Permission("vm.operate")
VM_EDIT = Permission("vm.edit")
VM_DELETE = Permission("vm.delete")

PLATFORM = Permission("platform")
"""No person's: what the platform says to itself."""
