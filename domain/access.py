"""Permissions, by name. Each verb names the permission that a caller needs for it.

Each kind defines its own; here are those that several files use. `operate`: change what a resource does. `edit`: change
what it is. `manage`: both, for a part of the cloud itself.
"""

from typing import NewType

Permission = NewType("Permission", str)

VM_CREATE = Permission("vm.create")
VM_OPERATE = Permission("vm.operate")
VM_EDIT = Permission("vm.edit")
VM_DELETE = Permission("vm.delete")

PLATFORM = Permission("platform")
"""For commands of the platform itself. No person has it."""
