"""The library's contracts for recorders and for the factory, unmodified, on a real server."""

import os
from typing import Any
from unittest import TestCase

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.tests import persistence as contract
from eventsourcing.utils import Environment

from eventstore.library.recorder import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamFactory,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)


def new_factory(test: TestCase) -> InfrastructureFactory[Any]:
    factory: InfrastructureFactory[Any] = InfrastructureFactory.construct(Environment(env=dict(os.environ)))
    test.addCleanup(factory.close)
    return factory


class TestAggregateRecorder(contract.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return new_factory(self).aggregate_recorder()


class TestSnapshotRecorder(contract.AggregateRecorderTestCase):
    def create_recorder(self) -> Any:
        return new_factory(self).aggregate_recorder(purpose="snapshots")


class TestAggregateRecorderWithTextIds(TestAggregateRecorder):
    def new_originator_id(self) -> str:
        return f"account-{super().new_originator_id()}"


class TestApplicationRecorder(contract.ApplicationRecorderTestCase[JetStreamApplicationRecorder]):
    def create_recorder(self) -> Any:
        return new_factory(self).application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderWithTextIds(TestApplicationRecorder):
    def new_originator_id(self) -> str:
        return f"account-{super().new_originator_id()}"


class TestNonInterleavingNotificationIDs(contract.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> Any:
        return new_factory(self).application_recorder()


class TestTrackingRecorder(contract.TrackingRecorderTestCase):
    def create_recorder(self) -> Any:
        return new_factory(self).tracking_recorder()


class TestProcessRecorder(contract.ProcessRecorderTestCase):
    def create_recorder(self) -> Any:
        return new_factory(self).process_recorder()


class SubclassedTrackingRecorder(JetStreamTrackingRecorder):
    pass


class TestFactory(contract.InfrastructureFactoryTestCase[JetStreamFactory]):
    def setUp(self) -> None:
        self.env = Environment("TestCase", dict(os.environ))
        super().setUp()

    def expected_factory_class(self) -> type[JetStreamFactory]:
        return JetStreamFactory

    def expected_aggregate_recorder_class(self) -> type[JetStreamAggregateRecorder]:
        return JetStreamAggregateRecorder

    def expected_application_recorder_class(self) -> type[JetStreamApplicationRecorder]:
        return JetStreamApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[JetStreamTrackingRecorder]:
        return JetStreamTrackingRecorder

    def tracking_recorder_subclass(self) -> type[JetStreamTrackingRecorder]:
        return SubclassedTrackingRecorder

    def expected_process_recorder_class(self) -> type[JetStreamProcessRecorder]:
        return JetStreamProcessRecorder
