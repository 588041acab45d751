"""What is served of `web/`: each file as it is, but those that every page needs are one script and one style sheet."""

from collections.abc import Mapping

from gateway.console.pack import joined

APP, WORKER = "app.js", "core/live-worker.js"
#: The modules that are joined with the entry, by their paths or folders in `web/`, and all that they import.
EARLY = ("core/", "parts/", "pages/overview.js")
#: The style sheets that are one, in this order.
STYLES = ("app.css", "parts.css", "pages.css")


def served(texts: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """The text of each file that is served, by its path.

    `texts`: those of `web/`. `others`: those of the modules of other projects that are joined with them.
    Raises CannotJoin.
    """
    scripts = {name: text for name, text in texts.items() if name.endswith(".js")}
    early = [name for name in scripts if name.startswith(EARLY) and name != WORKER]
    worker = joined(scripts, WORKER)[WORKER]
    alone = {name: text for name, text in scripts.items() if name != WORKER}
    app = joined({**alone, **others}, APP, early)
    found = {name: text for name, text in app.items() if name not in others} | {WORKER: worker}
    found |= {name: text for name, text in texts.items() if name not in scripts and name not in STYLES}
    return {**found, STYLES[0]: "".join(texts[name] for name in STYLES)}
