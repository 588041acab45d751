"""What somebody may be allowed to do. Each verb names the permission that it needs."""

from enum import StrEnum


class Permission(StrEnum):
    """`operate`: change what a thing does; `edit`: change what it is; `manage`: both, of a part of the cloud itself."""

    VM_CREATE = "vm.create"
    VM_OPERATE = "vm.operate"
    VM_EDIT = "vm.edit"
    VM_DELETE = "vm.delete"
    PROJECT_MANAGE = "project.manage"
    TAG_MANAGE = "tag.manage"
    IMAGE_MANAGE = "image.manage"
    NODE_MANAGE = "node.manage"
    PLATFORM = "platform"
    """No person's: what the platform says to itself."""
