"""The reads of images."""

from domain.access import IMAGE_READ
from gateway.reads import reads
from gateway.reads.read import Read
from gateway.table.parameters import PAGED, PAST
from projections.images import ImageView

FILTERS = ("phase", "project", "distribution", "release", "architecture")

READS = (
    Read("/v1/images", IMAGE_READ, reads.images, "Images", (*FILTERS, *PAGED), ImageView, listed=True),
    Read("/v1/images/{image}", IMAGE_READ, reads.image, "An image", ("project", *PAST), ImageView),
)
