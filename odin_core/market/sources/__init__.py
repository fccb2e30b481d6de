"""Sources: where a market's bars come from. One module a vendor; the profile's `source: {kind: …}` names it.

A module `sources/<kind>.py` has `SECRETS` (variable → what it is), `SETTINGS` (what a profile may say beside what all
take, `settings.ASKED`) and `connect(settings, around) -> Source`; nothing else learns its name. What a source hands
over is as the vendor has it, but for the columns, UTC and the bar's start: rules, quarantine and storing are
`intake.importing`, what to ask for is `intake.fetching`."""
