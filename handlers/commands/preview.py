"""What a create would do now: `nebula.commands.<project>.vm.preview` has the arguments of a create.

It is judged by the same rules as the create, for the same permission, and gets the same refusals. Nothing is stored: no
event, no operation, no key. User-data is judged and forgotten.
"""

from domain import vm
from domain.base import Category, Rejected
from domain.candidates import Candidates
from domain.contract import CommandRequest
from domain.placement import Placement, Wish
from domain.vm import Vm
from domain.vm.features import features
from domain.vm.offers import NO_OPERATION
from domain.vm.preview import VmPreview
from eventstore.log.envelope import Ref
from eventstore.log.store import EventStore
from handlers.apply import caught_up, now
from handlers.commands.lookups import Args, Facts, checked_create, judged_user_data
from handlers.commands.permissions import Permissions
from handlers.commands.routes import ROUTES
from handlers.keys import alone
from runtime.random_id import random_uuid

#: The kind and the verb in the subject.
KIND, VERB = "vm", "preview"
_CREATE = ROUTES[KIND, vm.verbs.create.NAME]


class Previews:
    """Answers what creates would do."""

    def __init__(self, store: EventStore, facts: Facts, permissions: Permissions) -> None:
        self._store = store
        self._facts = facts
        self._permissions = permissions

    async def of(self, project: str, request: CommandRequest) -> VmPreview:
        """What the create would do. Raises what the create would raise: Rejected, ValidationError, Unavailable.

        `vm` in the arguments is the id that the caller has chosen, if it has.
        """
        chosen = request.args.get(KIND)
        ref = _ref(project, chosen)
        args: Args = {name: value for name, value in request.args.items() if value is not None}
        args[KIND] = ref.id
        access = await self._permissions.check(_CREATE, ref, dict(args), request.context)
        await caught_up(self._store, self._facts.world)
        if chosen is not None:
            await self._check_unused(ref)
        prepared = checked_create({**args, "created_by": request.context.actor}, project, self._facts)
        _, notices = await judged_user_data(prepared)
        own = {"operation": NO_OPERATION, "fingerprint": "", "notices": notices, "at": now()}
        command = _CREATE.verb.admit(access, vm.CreateVm.model_validate({**prepared, **own}), None)
        state: Vm | None = None
        for event in vm.decide(None, command):
            state = vm.evolve(state, event)
        assert state is not None, "a create makes a VM"
        placement = self._placement(state)
        return VmPreview(
            node=placement.node,
            considered=placement.considered,
            warnings=notices,
            size=state.spec,
            position=self._facts.world.position,
        )

    async def _check_unused(self, ref: Ref) -> None:
        """Raises Rejected if the id is, or was, that of another resource."""
        known = self._facts.world.get(ref).state
        if isinstance(known, Vm):
            raise vm.verbs.create.taken(known)
        if await self._store.unused(alone(ref.id)) is None:
            detail = f"the id {ref.id} is, or was, another resource's; choose another id, or give none"
            raise Rejected("vm_exists", detail, field="id")

    def _placement(self, state: Vm) -> Placement:
        """The choice of a node, with what the nodes have promised now."""
        base = self._facts.world.image(state.image)
        candidates = Candidates(self._facts.policy)
        candidates.update(self._facts.world.each_node())
        architecture = base.architecture if base is not None else None
        return candidates.place(Wish(state.spec.resources(), state.region, architecture, features(state)))


def _ref(project: str, chosen: object) -> Ref:
    """The VM's id: the chosen one, or any. Raises Rejected."""
    if chosen is not None and not isinstance(chosen, str):
        raise Rejected("invalid_request", "vm has to be an id, or left out", Category.INVALID, field="id")
    try:
        ref = _CREATE.ref(project, chosen if chosen is not None else random_uuid())
        _ = ref.subject
    except ValueError as error:
        raise Rejected("invalid_request", str(error), Category.INVALID, field="id") from error
    return ref
