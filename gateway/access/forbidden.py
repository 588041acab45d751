"""The refusals of calls that a caller may not make: 404 for what it may not see, 403 for what it may not do."""

from domain.access import PROJECT_READ, Access, Permission, lacking
from gateway.http.parameters import not_found
from gateway.http.problems import Problem


def forbidden(access: Access, permission: Permission, project: str | None = None, *, anywhere: bool = False) -> Problem:
    """The refusal of what a caller sees and may not do. `anywhere`: a role in any project would be enough."""
    return Problem(403, "forbidden", lacking(access, permission, project, anywhere=anywhere))


def in_project(access: Access, permission: Permission, project: str) -> None:
    """Judge a call on something of a project.

    Raises Problem: 404 if the caller may not see the project, whether it exists or not; 403 if it sees it and may not
    do this.
    """
    if access.may(permission, project):
        return
    if not access.may(PROJECT_READ, project):
        raise not_found("project", project)
    raise forbidden(access, permission, project)


def for_project(access: Access, permission: Permission, project: str | None) -> None:
    """Judge a command that creates something for a project, which its body names, or for the whole cloud (None).

    Raises Problem: 422 if the caller may not see the project, as for one that does not exist; else 403.
    """
    if access.may(permission, project):
        return
    if project is not None and not access.may(PROJECT_READ, project):
        detail = f"there is no project {project}"
        raise Problem(422, "project_not_found", detail, [("project", detail)])
    raise forbidden(access, permission, project)
