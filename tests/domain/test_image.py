"""A base image: registered, verified or rejected, deleted, registered anew."""

from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError

from domain import image
from domain.base import Category, Event, Rejected
from domain.contract import Firmware
from domain.image import (
    AcceptImage,
    DeleteImage,
    Image,
    ImageDeleted,
    ImageDeletionBegun,
    ImageDeletionGivenUp,
    ImagePhase,
    ImageProgressed,
    ImageRegistered,
    ImageRejected,
    ImageVerified,
    NoteProgress,
    RegisterImage,
    RejectImage,
    usable_image,
)
from domain.references import FinishDeletion, Users
from tests.domain.story import Story, at, fold, refused, stored, uid

SHA256 = "ab" * 32


def register(operation: int = 10, **more: Any) -> RegisterImage:
    given = {"image": "base", "operation": uid(operation), "fingerprint": "f", "name": "Base", "at": at()}
    return RegisterImage(**{**given, "source": "/var/lib/base.qcow2", "sha256": SHA256, **more})


def users(vm: int) -> Users:
    return Users(ids={"vm": tuple(map(str, range(vm)))})


def finish(used_by: int = 0) -> FinishDeletion:
    return FinishDeletion(id="base", at=at(10), users=users(used_by))


def delete(operation: int = 20, **more: Any) -> DeleteImage:
    return DeleteImage(**{"image": "base", "operation": uid(operation), "fingerprint": "f", "at": at(9), **more})


ACCEPT = AcceptImage(
    image="base", registration=uid(10), at=at(5), format="qcow2", size_bytes=10, virtual_size_bytes=1024
)
PROGRESS = NoteProgress(image="base", registration=uid(10), at=at(4), bytes_done=5, bytes_total=10)
REJECT = RejectImage(
    image="base", registration=uid(10), at=at(5), code="checksum_mismatch", detail="other bytes", field="sha256"
)
NEW: Story[Image] = Story(image.decide, image.evolve, None)
VERIFYING = NEW.when(register())
PHASES = {
    ImagePhase.VERIFYING: VERIFYING,
    ImagePhase.AVAILABLE: VERIFYING.and_when(ACCEPT),
    ImagePhase.REJECTED: VERIFYING.and_when(REJECT),
    ImagePhase.DELETED: VERIFYING.and_when(delete()).and_when(finish()),
}


def story(phase: ImagePhase) -> Story[Image]:
    assert PHASES[phase].after.phase is phase
    return Story(image.decide, image.evolve, PHASES[phase].after)


def test_what_its_guests_are_started_by_is_remembered() -> None:
    assert VERIFYING.after.firmware is Firmware.BIOS
    uefi = NEW.when(register(firmware=Firmware.UEFI)).and_when(ACCEPT).after
    assert (uefi.phase, uefi.firmware) == (ImagePhase.AVAILABLE, Firmware.UEFI)


def test_only_what_was_verified_is_available() -> None:
    VERIFYING.then(ImageRegistered, deadline=at() + image.VERIFY_DEADLINE, operation=uid(10))
    done = VERIFYING.and_when(ACCEPT).then(ImageVerified, operation=uid(10)).after
    assert (done.phase, done.format, done.virtual_size_bytes) == (ImagePhase.AVAILABLE, "qcow2", 1024)
    bad = VERIFYING.and_when(REJECT).then(ImageRejected, operation=uid(10), field="sha256").after
    assert (bad.phase, bad.failure) == (ImagePhase.REJECTED, "other bytes")


def test_a_slow_verdict_on_an_earlier_registration_judges_nothing() -> None:
    again = VERIFYING.and_when(REJECT).and_when(register(11))
    again.and_when(ACCEPT).then_nothing()
    again.and_when(ACCEPT.model_copy(update={"registration": uid(11)})).then(ImageVerified, operation=uid(11))


def test_while_it_is_read_its_deadline_moves() -> None:
    moved = VERIFYING.and_when(PROGRESS).then(ImageProgressed, bytes_done=5, operation=uid(10))
    assert moved.after.updated_at == at(4)
    assert moved.and_when(ACCEPT).after.phase is ImagePhase.AVAILABLE


def test_a_digest_that_nobody_gave_is_the_one_that_was_found() -> None:
    found = NEW.when(register(sha256=None)).and_when(ACCEPT.model_copy(update={"sha256": SHA256})).after
    assert found.sha256 == SHA256
    assert VERIFYING.and_when(ACCEPT).after.sha256 == SHA256, "as in events from before it was recorded"


def test_one_that_belongs_to_a_project_is_seen_by_that_alone() -> None:
    own = NEW.when(register(project="mine")).after
    assert (own.visible("mine"), own.visible("theirs")) == (True, False)
    assert VERIFYING.after.visible("theirs")


@pytest.mark.parametrize("phase", [p for p in ImagePhase if p is not ImagePhase.VERIFYING])
def test_a_verdict_falls_once(phase: ImagePhase) -> None:
    story(phase).when(ACCEPT).then_nothing()
    story(phase).when(PROGRESS).then_nothing()
    story(phase).when(REJECT).then_nothing()


@pytest.mark.parametrize("phase", ImagePhase)
def test_registering_again(phase: ImagePhase) -> None:
    story(phase).when(register()).then_nothing()
    story(phase).when(register(fingerprint="other")).then_rejected("idempotency_key_reused", Category.INVALID)
    other = story(phase).when(register(11, sha256="cd" * 32))
    if phase in (ImagePhase.DELETED, ImagePhase.REJECTED):
        fresh = other.then(ImageRegistered).after
        assert (fresh.phase, fresh.sha256, fresh.failure) == (ImagePhase.VERIFYING, "cd" * 32, None)
        assert uid(10) in fresh.operations, "what was asked before is remembered"
    else:
        assert other.then_rejected("image_exists").field == "id"


@pytest.mark.parametrize("phase", ImagePhase)
def test_deleting(phase: ImagePhase) -> None:
    if phase is ImagePhase.DELETED:
        story(phase).when(delete()).then_nothing()
        story(phase).when(delete(21)).then_rejected("image_deleted", Category.GONE)
        return
    story(phase).when(delete(users=users(2))).then_rejected("image_in_use")
    closing = story(phase).when(delete()).then(ImageDeletionBegun)
    assert closing.after.phase is phase
    closing.and_when(delete()).then_nothing()
    closing.and_when(delete(21)).then_rejected("image_being_deleted")
    closing.and_when(register(22)).then_rejected("image_being_deleted")
    assert closing.and_when(finish()).then(ImageDeleted).after.phase is ImagePhase.DELETED
    given_up = closing.and_when(finish(used_by=1)).then(ImageDeletionGivenUp)
    assert given_up.after == story(phase).state, "as if nobody had asked"


def test_what_is_being_deleted_cannot_be_used() -> None:
    available = story(ImagePhase.AVAILABLE)
    assert usable_image(available.state, "base", "p") == available.state
    closing = available.when(delete()).after
    assert refused(lambda: usable_image(closing, "base", "p")).code == "image_being_deleted"


def test_an_unknown_image_is_not_found() -> None:
    for command in (ACCEPT, PROGRESS, REJECT, delete()):
        NEW.when(command).then_rejected("image_not_found", Category.NOT_FOUND)


@pytest.mark.parametrize(
    "source",
    [
        *("base.qcow2", "ftp://host/x", "http://", "", "/" + "x" * 3000),
        *(
            'json:{"file.filename":"/etc/shadow"}',
            "nbd://host/disk",
            "ssh://host/disk",
            "file:///etc/shadow",
            "fat:/etc",
        ),
    ],
)
def test_a_source_is_a_path_or_a_url(source: str) -> None:
    with pytest.raises(ValidationError):
        register(source=source)


class ImageMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state: Image | None = None
        self.history: list[Event] = []

    def ask(self, command: Any) -> None:
        try:
            events = image.decide(self.state, command)
        except Rejected:
            return
        for event in events:
            assert stored(event) == event
            self.state = image.evolve(self.state, stored(event))
        self.history += events
        assert image.decide(self.state, command) == []

    @rule(operation=st.integers(1, 6), sha256=st.sampled_from([SHA256, "cd" * 32]))
    def is_registered(self, operation: int, sha256: str) -> None:
        self.ask(register(operation, sha256=sha256, fingerprint=sha256[:2]))

    @rule(verdict=st.sampled_from([ACCEPT, REJECT]), operation=st.integers(1, 6))
    def is_judged(self, verdict: Any, operation: int) -> None:
        self.ask(verdict.model_copy(update={"registration": uid(operation)}))

    @rule(operation=st.integers(4, 9), used_by=st.sampled_from([0, 0, 1]))
    def is_deleted(self, operation: int, used_by: int) -> None:
        self.ask(delete(operation, users=users(used_by)))

    @rule(used_by=st.sampled_from([0, 0, 1]))
    def is_finished(self, used_by: int) -> None:
        self.ask(finish(used_by))

    @invariant()
    def the_history_tells_the_same(self) -> None:
        assert fold(image.evolve, self.history) == self.state

    @invariant()
    def what_is_available_is_measured(self) -> None:
        if self.state is not None and self.state.phase is ImagePhase.AVAILABLE:
            assert None not in (self.state.format, self.state.size_bytes, self.state.virtual_size_bytes)

    @invariant()
    def there_is_always_a_way_on(self) -> None:
        if self.state is not None:
            begin = register(99) if self.state.phase is ImagePhase.DELETED else delete(99)
            assert image.decide(self.state, finish() if self.state.closing else begin)


ImageMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestImageMachine = ImageMachine.TestCase


@pytest.mark.parametrize(
    ("given", "by"),
    [
        ({}, Firmware.BIOS),
        ({"firmware": Firmware.UEFI}, Firmware.UEFI),
        ({"architecture": "aarch64"}, Firmware.UEFI),
        ({"architecture": "ARM64", "firmware": Firmware.UEFI}, Firmware.UEFI),
    ],
)
def test_what_starts_the_guests_of_an_image(given: dict[str, Any], by: Firmware) -> None:
    (event,) = image.decide(None, register(**given))
    assert isinstance(event, ImageRegistered)
    assert event.firmware is by


def test_there_is_no_bios_for_arm() -> None:
    with pytest.raises(Rejected, match="uefi") as caught:
        image.decide(None, register(architecture="aarch64", firmware=Firmware.BIOS))
    assert (caught.value.code, caught.value.category, caught.value.field) == (
        "wrong_firmware",
        Category.INVALID,
        "firmware",
    )
