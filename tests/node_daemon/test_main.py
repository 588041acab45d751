"""The end of a node daemon."""

import asyncio

from runtime.tasks.tasks import to_the_end


async def test_work_at_the_end_is_finished_although_its_task_is_cancelled_again() -> None:
    done: list[str] = []
    goes_on = asyncio.Event()

    async def work() -> None:
        await goes_on.wait()
        done.append("removed")

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    goes_on.set()
    await asyncio.wait([task])
    assert done == ["removed"]
