"""The reads of projects."""

from functools import partial

from domain.access import EVENT_READ, PROJECT_READ
from gateway.events import feed
from gateway.reads import reads, usage
from gateway.reads.read import Read
from gateway.table.parameters import FEED, PAGED, PAST
from projections.projects import ProjectView
from projections.usage import UsageView

READS = (
    Read("/v1/projects", PROJECT_READ, reads.projects, "Projects", ("tag", *PAGED), ProjectView, listed=True),
    Read("/v1/projects/{project}", PROJECT_READ, partial(reads.one, kind="project"), "A project", PAST, ProjectView),
    Read(
        "/v1/projects/{project}/usage",
        PROJECT_READ,
        usage.usage,
        "The resources of a project's VMs, now or at an earlier time",
        PAST,
        UsageView,
        statuses=(410,),
    ),
    Read("/v1/projects/{project}/feed", EVENT_READ, feed.of_project, "The feed of a project", FEED),
)
