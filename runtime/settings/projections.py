"""The settings of projections."""

from runtime.settings.stores import Database, Keyed, Vaulted


class ProjectionsSettings(Database, Vaulted, Keyed):
    pass
