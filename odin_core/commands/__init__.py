"""The commands of `odin`, one module per group. Each parses, calls and prints; what a command does is elsewhere."""
