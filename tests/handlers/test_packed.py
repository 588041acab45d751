"""Wanted documents as handlers keep them: the same bytes come back, and most of them take little memory."""

import uuid

from domain.contract import Desired, ImageSource, Wanted
from handlers.managers.packed import Packer


def document(number: int, image: str | None = "a") -> Wanted:
    source = None
    if image is not None:
        source = ImageSource(
            image="debian-12",
            source="https://images.example/debian-12.qcow2",
            sha256=(image * 64)[:64],
            sha512=uuid.UUID(int=number // 1000).hex * 4,
            format="qcow2",
            size_bytes=1,
            virtual_size_bytes=1,
        )
    return Wanted(
        vm=str(uuid.uuid5(uuid.NAMESPACE_DNS, str(number))),
        project="default",
        name=f"web-{number}",
        node="n1",
        epoch=1,
        generation=number,
        desired=Desired.ON,
        boots=1,
        vcpus=1,
        memory_mib=512,
        disk_gib=4,
        image=source,
        seed_url=f"http://10.0.0.1:8775/{uuid.uuid5(uuid.NAMESPACE_URL, str(number)).hex}/" if source else "",
        mac="52:54:00:00:00:01",
    )


def test_each_document_comes_back_and_those_of_one_image_take_little() -> None:
    packer = Packer()
    found = [document(number, image) for number in range(1, 200) for image in ("a", "b", None)]
    bodies = [each.model_dump_json().encode() for each in found]
    packed = [packer.pack(each, body) for each, body in zip(found, bodies, strict=True)]
    assert [each.body for each in packed] == bodies
    assert sum(len(each.data) for each in packed[3:]) < sum(map(len, bodies)) / 5


def test_very_many_images_are_no_reason_to_keep_more() -> None:
    packer = Packer()
    found = [document(1).model_copy(update={"vm": str(uuid.UUID(int=1))})]
    for number in range(1500):
        image = found[0].image
        assert image is not None
        each = found[0].model_copy(update={"image": image.model_copy(update={"sha256": f"{number:064x}"})})
        body = each.model_dump_json().encode()
        assert packer.pack(each, body).body == body
    assert len(packer._bases) <= 1001
