"""The stories of VMs: what happens to each, in commands."""

from pathlib import Path
from typing import Any

from domain.base import Resources, Sealed
from domain.contract import Power
from domain.vm import (
    AbandonVm,
    ChangeVm,
    CloseConsole,
    Considered,
    Console,
    DeferVm,
    DeleteVm,
    DropVm,
    HostKey,
    Notice,
    OpenConsole,
    PauseVm,
    RebuildVm,
    RecordGuestReady,
    ResizeVm,
    RestartByPolicy,
    RestartVm,
    ResumeVm,
    RetryVm,
    ScheduleVm,
    StartVm,
    StopVm,
    SuspendVm,
    TagVm,
)
from domain.vm.verbs.rescue import RescueVm, UnrescueVm
from tests.domain.lives import (
    ADDRESSED,
    FAILED,
    ID,
    RUNNING,
    SCHEDULED,
    STOPPING,
    ask,
    broken,
    create,
    expire,
    forget,
    lose,
    report,
    stalled,
)
from tests.domain.story import at, uid

HERE = Path(__file__).parent

FULL = (Considered(node="n1", reason="is cordoned"), Considered(node="n2", reason="1024 MiB asked, 0 free"))
KEY = HostKey(type="ssh-ed25519", key="AAAAC3NzaC1lZDI1NTE5AAAAIA==", fingerprint="SHA256:3f1eDQ")
SECRET = Sealed(key=ID, nonce="AAECAwQFBgcICQoL", ciphertext="c2VjcmV0IGFuZCBtYWM=", size=14)

RICH = [
    create(region="north", tags=("web", "db"), ssh_keys=("ssh-ed25519 AAAA é",), user_data=SECRET, name="web-1"),
    DeferVm(vm=ID, at=at(1), considered=FULL),
    ScheduleVm(vm=ID, at=at(2), node="n1", considered=(Considered(node="n1"), FULL[1])),
    report(Power.ABSENT, 1, step="image", seconds=3),
    report(Power.ON, 2, boots=1, seconds=4),
    report(Power.ON, 3, boots=1, seconds=5, addresses=("192.0.2.7", "2001:db8::7")),
    RecordGuestReady(vm=ID, at=at(6), hostname="web-1", host_keys=(KEY,)),
    ask(TagVm, 11, tags=("db",)),
    ask(RestartVm, 12, grace_seconds=1.5),
    report(Power.ON, 4, boots=2, seconds=110, addresses=("192.0.2.8",)),
    ask(StopVm, 13),
    report(Power.OFF, 5, seconds=200),
    ask(StartVm, 14),
    lose(),
    report(Power.ON, 6, boots=3, seconds=300),
    RecordGuestReady(vm=ID, at=at(301)),
    ask(StopVm, 15, force=True),
]

#: By file name. Like all stories: those that have a file are never edited, and a new one comes last.
VM_STORIES: dict[str, list[Any]] = {
    "vm-1-rich": RICH,
    "vm-2-deleted": [*RUNNING, ask(DeleteVm, 13), report(Power.ABSENT, 2)],
    "vm-3-failed": [*FAILED, ask(StartVm, 15), expire(15)],
    "vm-4-dropped": [create(), DropVm(vm=ID, at=at(1), code="image_not_found", detail="image base was deleted")],
    "vm-5-crashed": [*RUNNING, report(Power.OFF, 2, cause="crashed")],
    "vm-6-missing": [*RUNNING, report(Power.ABSENT, 2)],
    "vm-7-delete-late": [*SCHEDULED, ask(DeleteVm, 13), expire(13)],
    "vm-8-suspended": [
        *RUNNING,
        ask(PauseVm, 11),
        report(Power.PAUSED, 2, boots=1, seconds=110),
        ask(ResumeVm, 12),
        report(Power.ON, 3, boots=1, seconds=120, addresses=("192.0.2.9",)),
        stalled(4, seconds=130),
        ask(ResumeVm, 13),
        report(Power.ON, 5, boots=1, seconds=140),
        ask(SuspendVm, 14),
        report(Power.SUSPENDED, 6, seconds=150),
        lose(),
        report(Power.SUSPENDED, 7, seconds=160),
    ],
    "vm-9-changed": [
        create(labels={"team": "blue", "env/stage": ""}, protected=True),
        ask(ChangeVm, 11, name="db-1", tags=("db",), labels={"team": "grün"}),
        ask(ChangeVm, 12, labels={}, protected=False),
    ],
    "vm-10-abandoned": [*SCHEDULED, ask(AbandonVm, 11), ask(RetryVm, 12), ask(AbandonVm, 13)],
    "vm-11-retried": [
        *[*STOPPING, broken(2, seconds=120), ask(RetryVm, 12, at=at(130)), report(Power.OFF, 3, seconds=140)],
        *[ask(DeleteVm, 13, at=at(150)), broken(4, seconds=160), ask(RetryVm, 14, at=at(170))],
    ],
    "vm-12-forgotten": [*RUNNING, lose(), forget(11), report(Power.ABSENT, 9, epoch=2, seconds=9000)],
    "vm-13-resized": [
        *RUNNING,
        ask(ResizeVm, 11, vcpus=2, disk_gib=8),
        ask(RestartVm, 12),
        report(Power.ON, 2, boots=2, seconds=200, size=Resources(vcpus=2, memory_mib=512, disk_gib=8)),
    ],
    "vm-14-rebuilt": [
        *RUNNING,
        ask(RebuildVm, 11, image="debian-13", ssh_keys=("ssh-ed25519 AAAA",), user_data=SECRET),
        report(Power.ON, 2, boots=2, seconds=200),
    ],
    "vm-15-restarted": [
        *[create(restart_policy="on-failure"), ScheduleVm(vm=ID, at=at(1), node="n1")],
        report(Power.ON, 1, boots=1),
        ask(ChangeVm, 11, restart_policy="always"),
        report(Power.OFF, 2, cause="crashed", seconds=200),
        RestartByPolicy(vm=ID, operation=uid(12), at=at(201)),
        report(Power.ON, 3, boots=2, seconds=210),
        report(Power.OFF, 4, cause="guest", seconds=220),
    ],
    "vm-17-full-disk": [
        *SCHEDULED,
        broken(1, code="disk_full", seconds=30),
        RestartByPolicy(vm=ID, operation=uid(30), at=at(35)),
        broken(2, code="disk_full", seconds=40),
        RestartByPolicy(vm=ID, operation=uid(31), at=at(50)),
        report(Power.ON, 3, boots=3, seconds=60),
    ],
    "vm-18-forced": [*STOPPING, report(Power.OFF, 2, seconds=200, forced=True)],
    "vm-19-noticed": [
        create(user_data=SECRET, notices=(Notice(code="user_data_unknown", detail="cloud-init ignores it"),)),
        *RUNNING[1:],
        ask(RebuildVm, 11, image="base", user_data=SECRET, notices=(Notice(code="user_data_malformed", detail="x"),)),
    ],
    "vm-20-described": [create(description="a shop"), ask(ChangeVm, 11, description="")],
    "vm-21-mac": [create(), ScheduleVm(vm=ID, at=at(1), node="n1", mac="52:54:00:00:00:07")],
    "vm-22-boots": [
        *SCHEDULED,
        report(Power.ON, 1, boots=1, seconds=3, host_boot="a"),
        RecordGuestReady(vm=ID, at=at(60), hostname="web", host_keys=(KEY,), boots=1, boot="b-1"),
        report(Power.ON, 2, boots=1, seconds=70, host_boot="a", resets=1),
        RecordGuestReady(vm=ID, at=at(90), hostname="web", host_keys=(KEY,), boots=1, boot="b-2"),
        RecordGuestReady(vm=ID, at=at(190), hostname="web", host_keys=(KEY,), boots=1, boot="b-3"),
        report(Power.ON, 3, boots=1, seconds=300, host_boot="c"),
    ],
    "vm-23-forgotten-folder": [
        *RUNNING,
        lose(),
        forget(11, folder="f1"),
        report(Power.ABSENT, 9, epoch=2, lease=3, seconds=9000, folder="f1"),
    ],
    "vm-24-consoles": [
        *RUNNING,
        OpenConsole(vm=ID, at=at(300), session="0" * 31 + "1", console=Console.SERIAL),
        OpenConsole(vm=ID, at=at(301), session="0" * 31 + "2", console=Console.SERIAL, force=True),
        CloseConsole(
            vm=ID,
            at=at(302),
            session="0" * 31 + "1",
            console=Console.SERIAL,
            seconds=2.25,
            why="ada has taken over",
        ),
        OpenConsole(vm=ID, at=at(303), session="0" * 31 + "3", console=Console.VNC),
        CloseConsole(vm=ID, at=at(304), session="0" * 31 + "3", console=Console.VNC, seconds=1),
    ],
    "vm-25-watchdog": [
        *[create(watchdog="reset"), ScheduleVm(vm=ID, at=at(1), node="n1")],
        report(Power.ON, 1, boots=1),
        report(Power.ON, 2, boots=1, seconds=70, resets=2, watchdog_resets=1),
        ask(ChangeVm, 11, watchdog="poweroff"),
        report(Power.OFF, 3, cause="watchdog", seconds=200),
    ],
    "vm-26-address-sources": ADDRESSED,
    "vm-27-flavor": [create(flavor="small"), ScheduleVm(vm=ID, at=at(1), node="n1")],
    "vm-28-rescued": [
        *RUNNING,
        RecordGuestReady(vm=ID, at=at(60), hostname="web", host_keys=(KEY,), boots=1, boot="b-1"),
        ask(RescueVm, 11, image="rescue"),
        report(Power.ON, 2, boots=2, seconds=200),
        RecordGuestReady(vm=ID, at=at(260), hostname="web", host_keys=(KEY,), boots=2, boot="b-2"),
        ask(UnrescueVm, 12, at=at(300), force=True),
        report(Power.ON, 3, boots=3, seconds=400),
        ask(RescueVm, 13, at=at(500)),
    ],
}
