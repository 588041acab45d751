"""Where a VM goes, and why not elsewhere."""

import random
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from domain.base import Category, Rejected, Resources, replace
from domain.candidates import EXAMPLES, FEW, MOST_WISHES, Candidates, place
from domain.node import Node, stored
from domain.node.reservations import Reserved
from domain.placement import Placement, Policy, Wish, check_attainable, check_resize, free
from domain.vm import Considered
from tests.domain.lives import SPEC, create, lived, schedule
from tests.domain.story import at, uid
from tests.domain.test_node import info

WISH = Resources(vcpus=2, memory_mib=1024, disk_gib=10)


def host(name: str, *, lost: bool = False, cordoned: bool = False, used: Resources | None = None, **more: Any) -> Node:
    return Node(
        id=name,
        info=stored(info(node=name, **more)),
        lost=lost,
        cordoned=cordoned,
        reservations=Reserved.of({uid(1): used} if used else {}),
        registered_at=at(),
        updated_at=at(),
    )


def reasons(choice: Placement) -> dict[str, str | None]:
    return {one.node: one.reason for one in choice.considered}


def test_the_most_free_memory_wins_and_the_others_are_told_why() -> None:
    nodes = [host("n1"), host("n2", memory_mib=8192), host("n3", lost=True), host("n4", cordoned=True)]
    choice = place(WISH, "north", [*nodes, host("n5", region="south")])
    assert choice.node == "n2"
    assert reasons(choice) == {
        "n1": "has less free memory (4096 MiB)",
        "n2": None,
        "n3": "is lost",
        "n4": "is cordoned",
        "n5": "is in region south, not north",
    }


def test_a_vm_grows_where_there_is_room_for_what_it_lacks() -> None:
    grows = lived([create(region="north"), schedule()])
    one = SPEC.resources()
    nodes = [host("n1", used=one), host("n2", memory_mib=8192), host("n3", region="south", memory_mib=99_999)]
    check_resize(grows, Resources(vcpus=16, memory_mib=4096, disk_gib=100), nodes, Policy())
    check_resize(grows, Resources(vcpus=1, memory_mib=64, disk_gib=4), nodes, Policy())
    with pytest.raises(Rejected) as refused:
        check_resize(grows, Resources(vcpus=1, memory_mib=8193, disk_gib=4), nodes, Policy())
    assert (refused.value.code, refused.value.field, refused.value.category) == (
        "too_large",
        "memory_mib",
        Category.INVALID,
    )
    assert refused.value.detail == "8193 MiB of memory requested, but the largest node has 8192; give at most 8192"
    with pytest.raises(Rejected) as full:
        check_resize(grows, Resources(vcpus=1, memory_mib=4097, disk_gib=4), nodes, Policy())
    assert (full.value.code, full.value.field, full.value.category) == ("no_room", "memory_mib", Category.CONFLICT)
    assert full.value.detail == "3585 more MiB of memory requested, 3584 free on node n1; give at most 4096"
    overfull = [host("n1", used=one, memory_mib=100)]
    check_resize(grows, one.model_copy(update={"memory_mib": 90}), overfull, Policy())


def test_more_than_any_node_has_is_refused_with_the_most_there_is() -> None:
    nodes = [host("n1", vcpus=2, memory_mib=8192, region="north"), host("n2", region="south", memory_mib=99_999)]
    policy = Policy(vcpu_ratio=4.0)
    check_attainable(Resources(vcpus=8, memory_mib=8192, disk_gib=4), "north", nodes, policy)
    check_attainable(Resources(vcpus=1, memory_mib=99_999, disk_gib=4), None, nodes, policy)
    check_attainable(Resources(vcpus=1, memory_mib=99_999, disk_gib=4), "east", nodes, policy)  # without nodes yet
    for wish, field, told in (
        (Resources(vcpus=9, memory_mib=64, disk_gib=4), "vcpus", "9 vCPUs requested, .* has 8"),
        (Resources(vcpus=1, memory_mib=8193, disk_gib=4), "memory_mib", "8193 MiB of memory requested, .* has 8192"),
    ):
        with pytest.raises(Rejected, match=told) as refused:
            check_attainable(wish, "north", nodes, policy)
        assert (refused.value.code, refused.value.field, refused.value.category) == (
            "too_large",
            field,
            Category.INVALID,
        )


def test_a_full_node_could_have_it_all_the_same() -> None:
    check_attainable(SPEC.resources(), None, [host("n1", used=SPEC.resources(), memory_mib=512)], Policy())


@pytest.mark.parametrize("names", [("n1", "n10"), ("n1", "n2"), ("a", "a-b", "b")])
def test_of_equals_the_lower_id_wins(names: tuple[str, ...]) -> None:
    choice = place(WISH, None, [host(name) for name in reversed(names)])
    assert choice.node == names[0]
    assert reasons(choice)[names[1]] == "has no more free memory (4096 MiB)"


def test_everything_that_is_short_is_named() -> None:
    choice = place(Resources(vcpus=17, memory_mib=5000, disk_gib=101), None, [host("n1")])
    assert choice == Placement(
        None,
        (
            Considered(
                node="n1",
                reason=(
                    "17 vCPUs requested, 16 free; 5000 MiB of memory requested, 4096 free; "
                    "101 GiB of disk requested, 100 free"
                ),
            ),
        ),
    )


def test_it_fits_to_the_last_byte() -> None:
    exact = Resources(vcpus=16, memory_mib=4096, disk_gib=100)
    assert place(exact, None, [host("n1")]).node == "n1"
    assert place(Resources(memory_mib=1), None, [host("n1", used=exact)]).node is None


def test_processors_are_promised_as_often_as_the_policy_says() -> None:
    wish = Resources(vcpus=5)
    assert place(wish, None, [host("n1")], Policy(vcpu_ratio=1.0)).node is None
    assert place(wish, None, [host("n1")], Policy(vcpu_ratio=1.25)).node == "n1"


def test_an_image_for_other_cpus() -> None:
    nodes = [host("n1"), host("n2", architecture="aarch64", memory_mib=1024)]
    choice = place(WISH, None, nodes, architecture="aarch64")
    assert choice.node == "n2"
    assert reasons(choice)["n1"] == "has x86_64 CPUs, and the image is for aarch64"
    assert place(WISH, None, nodes[:1], architecture="aarch64").node is None
    assert place(WISH, None, nodes[:1], architecture="x86_64").node == "n1"


def test_a_node_that_does_not_know_what_the_vm_needs() -> None:
    nodes = [host("old"), host("new", features=("other", "watchdog"), memory_mib=1024)]
    choice = place(WISH, None, nodes, features=("watchdog",))
    assert choice.node == "new"
    assert reasons(choice)["old"] == "does not know watchdog: its daemon is older"
    nowhere = place(WISH, None, nodes, features=("watchdog", "warp"))
    assert nowhere.node is None
    assert reasons(nowhere)["new"] == "does not know warp: its daemon is older"
    assert place(WISH, None, nodes).node == "old", "who needs nothing goes anywhere"


def test_no_nodes_no_place() -> None:
    assert place(WISH, None, []) == Placement(None, ())


amounts = st.builds(Resources, vcpus=st.integers(0, 20), memory_mib=st.integers(0, 5000), disk_gib=st.integers(0, 120))
hosts = st.lists(
    st.builds(
        host,
        st.sampled_from([f"n{n}" for n in range(12)]),
        lost=st.booleans(),
        cordoned=st.booleans(),
        used=st.one_of(st.none(), amounts),
        region=st.sampled_from(["north", "south"]),
        memory_mib=st.sampled_from([2048, 4096]),
    ),
    max_size=8,
    unique_by=lambda node: node.id,
)


@settings(max_examples=150, deadline=None)
@given(wish=amounts, region=st.sampled_from([None, "north", "south"]), nodes=hosts, ratio=st.sampled_from([1.0, 4.0]))
def test_any_wish_among_any_nodes(wish: Resources, region: str | None, nodes: list[Node], ratio: float) -> None:
    policy = Policy(vcpu_ratio=ratio)
    choice = place(wish, region, nodes, policy)

    told = reasons(choice)
    assert [one.node for one in choice.considered] == sorted(node.id for node in nodes), "each once, in order"
    assert [name for name, reason in told.items() if reason is None] == ([choice.node] if choice.node else [])

    fits = [node for node in nodes if may(wish, region, node, policy)]
    assert (choice.node is not None) == bool(fits)
    if choice.node is not None:
        best = next(node for node in nodes if node.id == choice.node)
        assert best in fits
        assert all(free(node, policy).memory_mib <= free(best, policy).memory_mib for node in fits)

    shuffled = random.Random(0).sample(nodes, len(nodes))
    assert place(wish, region, shuffled, policy) == choice, "the order of the nodes is no reason"


def may(wish: Resources, region: str | None, node: Node, policy: Policy) -> bool:
    """The rule in other words: with this VM on it, the node has promised no more than it has."""
    promised, have = node.reserved(), node.info
    return (
        not node.lost
        and not node.cordoned
        and region in (None, have.region)
        and promised.vcpus + wish.vcpus <= have.vcpus * policy.vcpu_ratio
        and promised.memory_mib + wish.memory_mib <= have.memory_mib
        and promised.disk_gib + wish.disk_gib <= have.disk_gib
    )


def test_of_many_nodes_a_few_of_each_kind_are_named_and_the_others_counted() -> None:
    nodes = [host(f"n{number:03d}", region="here" if number % 4 else "there") for number in range(100)]
    choice = place(WISH, "here", nodes)
    assert choice.node == "n001"
    assert len(choice.considered) == 1 + 2 * EXAMPLES
    assert sum(1 + one.more for one in choice.considered) == 100
    there = [one for one in choice.considered if one.reason == "is in region there, not here"]
    assert [(one.node, one.more) for one in there] == [("n000", 0), ("n004", 0), ("n008", 22)]
    nowhere = place(WISH, "nowhere", nodes)
    assert nowhere.node is None
    assert sum(1 + one.more for one in nowhere.considered) == 100


def test_a_node_in_a_small_cloud_is_always_named() -> None:
    nodes = [host(f"n{number:03d}") for number in range(FEW)]
    assert [one.more for one in place(WISH, None, nodes).considered] == [0] * FEW


def test_a_retired_node_is_not_even_looked_at() -> None:
    retired = replace(host("n2", lost=True), retired_at=at())
    found = place(WISH, None, [host("n1"), retired])
    assert found.node == "n1" and [each.node for each in found.considered] == ["n1"]
    check_attainable(Resources(vcpus=10_000), None, [retired], Policy())  # as where no node is known


def any_wish(chance: random.Random) -> Wish:
    size = Resources(
        vcpus=chance.randint(1, 9), memory_mib=chance.choice((64, 512, 4096)), disk_gib=chance.randint(1, 9)
    )
    features = chance.choice(((), ("watchdog",), ("warp",)))
    return Wish(size, chance.choice((None, "north", "south")), chance.choice((None, "x86_64", "aarch64")), features)


def any_host(chance: random.Random, number: int) -> Node:
    found = host(
        f"n{number}",
        lost=chance.random() < 0.1,
        cordoned=chance.random() < 0.1,
        used=Resources(vcpus=chance.randint(0, 4), memory_mib=chance.choice((0, 64, 4096)), disk_gib=1),
        region=chance.choice(("north", "south")),
        architecture=chance.choice(("x86_64", "aarch64")),
        features=chance.choice(((), ("watchdog",))),
    )
    return replace(found, retired_at=at()) if chance.random() < 0.1 else found


@pytest.mark.parametrize("seed", range(40))
def test_kept_orders_choose_as_a_look_at_all_nodes_does(seed: int) -> None:
    """Whatever changed since: nodes, rooms, nodes that come and go; and for more wishes than orders are kept."""
    chance = random.Random(seed)
    wishes = [any_wish(chance) for _ in range(2 * MOST_WISHES if seed % 4 == 0 else 5)]
    nodes = {number: any_host(chance, number) for number in range(chance.randint(0, 2 * FEW))}
    candidates = Candidates(Policy())
    for _ in range(60):
        wish = chance.choice(wishes)
        candidates.update(nodes.values())
        assert candidates.place(wish) == place(wish.size, wish.region, nodes.values(), None, *wish[2:])
        number = chance.randint(0, 2 * FEW)
        if number in nodes and chance.random() < 0.2:
            del nodes[number]
        else:
            nodes[number] = any_host(chance, number)
            if chance.random() < 0.5:
                candidates.change(nodes[number])
            if chance.random() < 0.2:  # what was decided and then not stored
                candidates.change(any_host(chance, number))
