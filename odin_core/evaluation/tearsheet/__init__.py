"""The tear sheet of a life: tables in, numbers and pictures out, as values, a page, Markdown and PNGs.

`records` says what comes in, `returns` and `dealing` hold the tables, `sheet` puts them together, `contents` says in
which words and units they are shown, `page`, `markdown` and `drawing` show them. Which files of a life are read and
where the page goes is in `lifecycle.report`."""
