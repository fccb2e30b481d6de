"""Datasets that can be named again: what an export or a training window held, file by file.

`manifest` is what is known of one, `registry` where a home keeps manifests and copies, `exporting` makes an export,
`training` describes a life's training window, `checking` holds a manifest against its files, `comparing` two of
them against each other."""
