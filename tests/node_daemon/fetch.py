"""`python -m tests.node_daemon.fetch FOLDER SOURCE`: fetches one image, so that a test can kill it."""

import asyncio
import sys
from pathlib import Path

from domain.contract import ImageSource
from tests.image_server import Images

if __name__ == "__main__":
    asyncio.run(Images(Path(sys.argv[1]), []).ensure(ImageSource.model_validate_json(sys.argv[2])))
